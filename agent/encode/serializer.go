package encode

import (
	"log/slog"
	"slices"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A serializer calls the encoding methods of a Pusher, and recovers their panics.
type serializer struct {
	pusher       plugin.Pusher
	restamper    plugin.Restamper    // nil if the Pusher is not one
	eventEncoder plugin.EventEncoder // likewise
	descUser     plugin.DescUser     // likewise
	endedEncoder plugin.EndedEncoder // likewise
	descs        []metric.Desc       // that the Pusher uses
	reject       func(series string, cause error)
	panics       *calls.Panics
	log          *slog.Logger
	endedLog     calls.Throttle
}

func newSerializer(p plugin.Pusher, panics *calls.Panics, log *slog.Logger, reject func(series string, cause error)) *serializer {
	s := &serializer{pusher: p, panics: panics, log: log, reject: reject}
	s.restamper, _ = p.(plugin.Restamper)
	s.eventEncoder, _ = p.(plugin.EventEncoder)
	s.descUser, _ = p.(plugin.DescUser)
	s.endedEncoder, _ = p.(plugin.EndedEncoder)
	return s
}

// appendPoint appends the record of a point. If its last record is given, it only gets a
// new time. A point that cannot be encoded is rejected.
func (s *serializer) appendPoint(dst []byte, p *metric.Point, last []byte) []byte {
	if len(last) > 0 {
		if b, err := s.callRestamp(dst, last, p.Time); err == nil {
			return b
		}
	}
	b, err := s.callEncode(dst, p)
	if err != nil {
		s.reject(p.Series(), err)
		return dst
	}
	return b
}

// appendEvent appends the record of an event, if there is one. An event that cannot be
// encoded is rejected.
func (s *serializer) appendEvent(dst []byte, event *metric.Point) []byte {
	if s.eventEncoder == nil {
		return s.appendPoint(dst, event, nil)
	}
	b, err := s.callEncodeEvent(dst, event)
	if err != nil {
		s.reject(event.Series(), err)
		return dst
	}
	return b
}

// appendEnded appends the record that ends a series, if it can be encoded.
func (s *serializer) appendEnded(dst []byte, e *endedSeries) []byte {
	s.useDescs(e.descs)
	b, err := s.callEncodeEnded(dst, &e.point, e.time)
	if err != nil {
		if n := s.endedLog.Add(1); n > 0 {
			s.log.Warn("cannot encode ended series, their last values remain for about five minutes", "series", n, "first", e.point.Series(), "error", err)
		}
		return dst
	}
	return b
}

// useDescs tells the Pusher the documentation of the fields that it encodes next.
func (s *serializer) useDescs(descs []metric.Desc) {
	if s.descUser == nil || sameDescs(descs, s.descs) {
		return
	}
	s.descs = descs
	var err error // logged by Recover
	defer s.panics.Recover(&err, s.log)
	s.descUser.UseDescs(descs)
}

// sameDescs reports whether a and b are equal. Most often they are the same slice.
func sameDescs(a, b []metric.Desc) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

func (s *serializer) callEncode(dst []byte, p *metric.Point) (b []byte, err error) {
	defer s.panics.Recover(&err, s.log)
	return s.pusher.Encode(dst, p)
}

func (s *serializer) callEncodeEvent(dst []byte, event *metric.Point) (b []byte, err error) {
	defer s.panics.Recover(&err, s.log)
	return s.eventEncoder.EncodeEvent(dst, event)
}

func (s *serializer) callRestamp(dst, record []byte, t time.Time) (b []byte, err error) {
	defer s.panics.Recover(&err, s.log)
	return s.restamper.Restamp(dst, record, t)
}

func (s *serializer) callEncodeEnded(dst []byte, series *metric.Point, t time.Time) (b []byte, err error) {
	defer s.panics.Recover(&err, s.log)
	return s.endedEncoder.EncodeEnded(dst, series, t)
}
