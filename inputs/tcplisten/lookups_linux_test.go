package tcplisten

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// TestLookupsWaitForNobody gives no name until it is known, that name from then on,
// and none when it has been taken away.
func TestLookupsWaitForNobody(t *testing.T) {
	answer := make(chan bool)
	n := &lookups[int]{patience: time.Millisecond, again: 10 * time.Minute}
	n.lookup = func(ctx context.Context, key int) (string, error) {
		select {
		case <-answer:
			return "late", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	t.Cleanup(n.close)
	const key = 1
	now := time.Now()
	want := map[int]bool{key: true}
	if n.want(t.Context(), want, now) || n.of(key) != "" {
		t.Errorf("before there is an answer it is %s", n.of(key))
	}
	close(answer)
	soon(t, "the name is news", func() bool { return n.want(t.Context(), want, now) })
	if n.of(key) != "late" || n.want(t.Context(), want, now) {
		t.Errorf("it is %s", n.of(key))
	}
	n.patience = time.Hour
	n.lookup = func(context.Context, int) (string, error) { return "", errors.New("misbehaving") }
	if n.want(t.Context(), want, now.Add(time.Hour)) || n.of(key) != "late" {
		t.Errorf("in an outage it is %s", n.of(key))
	}
	n.lookup = func(context.Context, int) (string, error) { return "", nil }
	if !n.want(t.Context(), want, now.Add(2*time.Hour)) || n.of(key) != "" {
		t.Errorf("without a name it is %s", n.of(key))
	}
	n.want(t.Context(), nil, now.Add(3*time.Hour))
	if len(n.known) != 0 {
		t.Errorf("%d names are kept of keys that are gone", len(n.known))
	}
}

// TestUsersServiceHangs shows the number of a user until the service that knows
// the name answers, and does not wait for it.
func TestUsersServiceHangs(t *testing.T) {
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	answer := make(chan bool)
	in.users.names.patience = time.Millisecond
	in.users.names.lookup = func(ctx context.Context, uid uint32) (string, error) {
		select {
		case <-answer:
			return "somebody", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	p := one(t, gather(t, in), ports[0])
	if got, want := p.Tag("user"), strconv.Itoa(os.Getuid()); got != want {
		t.Errorf("user %q while the service hangs, expected %q", got, want)
	}
	brief, cancel := context.WithCancel(t.Context())
	cancel()
	in.users.names.patience = time.Hour
	in.users.lookUp(brief, nil, time.Now().Add(time.Hour)) // does not wait longer than for that
	close(answer)
	in.users.names.patience = time.Millisecond
	soon(t, "the name", func() bool {
		p := one(t, gather(t, in), ports[0])
		return p.Tag("user") == "somebody"
	})
}

// TestUsersServiceTakesFewThreads has few lookups under way, whatever number of users
// there are to be asked for.
func TestUsersServiceTakesFewThreads(t *testing.T) {
	lookup := limitedTo(3, func(uint32) (string, error) { select {} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := runtime.NumGoroutine()
	for uid := range uint32(100) {
		if _, err := lookup(ctx, uid); err != context.Canceled {
			t.Errorf("%v", err)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 3 {
		t.Errorf("%d goroutines wait", n)
	}
}

// TestLookupUser tells a user without a name from one that could not be asked for.
func TestLookupUser(t *testing.T) {
	if name, err := lookupUser(0); name != "root" || err != nil {
		t.Errorf("user 0 is %q, %v", name, err)
	}
	if name, err := lookupUser(4_000_000_000); name != "" || err != nil {
		t.Errorf("user 4000000000 is %q, %v", name, err)
	}
}
