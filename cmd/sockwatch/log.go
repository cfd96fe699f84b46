package main

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// A logSwitch is a slog.Handler that forwards to the handler of the configuration in
// force. So a reload also changes the log of instances that it keeps.
type logSwitch struct {
	out      io.Writer
	buffered *logWriter // out, if it is a logWriter
	format   string     // in place of the configuration's, unless empty
	current  *atomic.Pointer[slog.Handler]
	extend   func(slog.Handler) slog.Handler // adds the attributes of a logger
}

// newLogSwitch returns a logSwitch with the log options of an empty configuration.
func newLogSwitch(out io.Writer) *logSwitch {
	s := &logSwitch{out: out, current: &atomic.Pointer[slog.Handler]{}, extend: func(h slog.Handler) slog.Handler { return h }}
	s.set("info", "text")
	return s
}

// buffer puts a bounded buffer before the log's writer, for commands that must not wait
// for its reader.
func (s *logSwitch) buffer() {
	s.buffered = newLogWriter(s.out, func(dropped int) {
		slog.New(s).Error("log reader too slow, records dropped", "records", dropped)
	})
	s.out = s.buffered
	s.set("info", "text")
}

// flush waits until the log is written. It reports false if its reader does not read it
// within the timeout.
func (s *logSwitch) flush(timeout time.Duration) bool {
	return s.buffered == nil || s.buffered.flush(timeout)
}

// set changes the level and format to those of an [agent] table.
func (s *logSwitch) set(level, format string) {
	var o slog.HandlerOptions
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil {
		o.Level = l
	}
	var h slog.Handler
	switch cmp.Or(s.format, format) {
	case telegrafFormat:
		h = newTelegrafHandler(s.out, o.Level)
	case "json":
		h = slog.NewJSONHandler(s.out, &o)
	default:
		h = slog.NewTextHandler(s.out, &o)
	}
	s.current.Store(&h)
}

func (s *logSwitch) Enabled(ctx context.Context, level slog.Level) bool {
	return (*s.current.Load()).Enabled(ctx, level)
}

func (s *logSwitch) Handle(ctx context.Context, r slog.Record) error {
	return s.extend(*s.current.Load()).Handle(ctx, r)
}

func (s *logSwitch) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (s *logSwitch) WithGroup(name string) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *logSwitch) with(more func(slog.Handler) slog.Handler) slog.Handler {
	extend := s.extend
	return &logSwitch{current: s.current, extend: func(h slog.Handler) slog.Handler { return more(extend(h)) }}
}
