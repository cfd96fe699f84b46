package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// archive is a destination that keeps records of at most 40 bytes.
type archive struct{ records []string }

// Encode appends one record. The agent queues what it returns.
func (a *archive) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return fmt.Appendf(dst, "%s %v", p.Series(), p.Fields[0].Value), nil
}

// Push stores the records, and names those that it can never store.
func (a *archive) Push(ctx context.Context, records [][]byte) error {
	if err := ctx.Err(); err != nil {
		return err // the agent keeps the records and tries again
	}
	rejected := map[int]error{}
	for i, r := range records {
		if len(r) > 40 {
			rejected[i] = errors.New("longer than 40 bytes")
			continue
		}
		a.records = append(a.records, string(r))
	}
	if len(rejected) > 0 {
		return &plugin.RejectedError{Records: rejected, OthersStored: true}
	}
	return nil
}

// A pusher stores what it can and names the records that it can never store: the agent
// writes those to the dead-letter file, with the reason, and goes on.
func ExamplePusher() {
	out := &archive{}
	var records [][]byte
	for _, port := range []string{"80", "a port with an unusually long name"} {
		record, err := out.Encode(nil, &metric.Point{
			Name: "listeners", Time: time.Now(), Tags: metric.NewTags("port", port),
			Fields: []metric.Field{{Key: "sockets", Value: metric.Int(2)}},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		records = append(records, record)
	}

	err := out.Push(context.Background(), records)
	fmt.Println(out.records)
	if rejected, ok := errors.AsType[*plugin.RejectedError](err); ok {
		for i, reason := range rejected.Records {
			fmt.Printf("record %d: %v\n", i, reason)
		}
	}
	// Output:
	// [listeners{port="80"} 2]
	// record 1: longer than 40 bytes
}
