package agent

import "sockwatch/agent/metric"

// An encoder turns batches into records. Its buffers are used again.
type encoder struct {
	bytes   []byte
	ends    []int
	records [][]byte
}

// encode returns the records of the batch's events and points that the output
// takes; they are valid until the next call. Points that cannot be encoded are
// rejected.
func (e *encoder) encode(o *runningOutput, b *metric.Batch) [][]byte {
	e.bytes, e.ends, e.records = e.bytes[:0], e.ends[:0], e.records[:0]
	for _, points := range [][]metric.Point{o.filter.Points(b.Events), o.filter.Points(b.Points)} {
		for _, point := range points {
			if point.Time.IsZero() {
				point.Time = b.Time
			}
			before := len(e.bytes)
			bytes, err := o.callEncode(e.bytes, &point)
			if err != nil {
				e.bytes = e.bytes[:before]
				o.rejectUnencoded(point.Series(), err)
				continue
			}
			e.bytes, e.ends = bytes, append(e.ends, len(bytes))
		}
	}
	from := 0
	for _, end := range e.ends {
		e.records = append(e.records, e.bytes[from:end:end])
		from = end
	}
	return e.records
}

func (o *runningOutput) callEncode(dst []byte, point *metric.Point) (b []byte, err error) {
	defer o.health.panics.recover(&err, o.log)
	return o.Pusher.Encode(dst, point)
}
