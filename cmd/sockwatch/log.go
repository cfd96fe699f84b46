package main

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// A logSwitch passes log records on to the handler of the configuration in force,
// so that a reload also changes the log of what it keeps running.
type logSwitch struct {
	out      io.Writer
	buffered *logWriter // out, if it is one
	format   string     // in place of the configuration's, unless empty
	current  *atomic.Pointer[slog.Handler]
	extend   func(slog.Handler) slog.Handler // adds the attributes of a logger
}

// newLogSwitch returns one that logs as an empty configuration says.
func newLogSwitch(out io.Writer) *logSwitch {
	s := &logSwitch{out: out, current: &atomic.Pointer[slog.Handler]{}, extend: func(h slog.Handler) slog.Handler { return h }}
	s.set("info", "text")
	return s
}

// buffer puts a bounded buffer before the writer of the log, for commands that must
// not wait for its reader.
func (s *logSwitch) buffer() {
	s.buffered = newLogWriter(s.out, func(dropped int) {
		slog.New(s).Error("dropped log records, the reader of the log did not keep up", "records", dropped)
	})
	s.out = s.buffered
	s.set("info", "text")
}

// flush waits until the log is written, false if its reader does not take it within
// the timeout.
func (s *logSwitch) flush(timeout time.Duration) bool {
	return s.buffered == nil || s.buffered.flush(timeout)
}

// set goes over to the level and format of an [agent] table.
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
