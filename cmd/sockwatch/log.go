package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
)

// A logSwitch passes log records on to the handler of the configuration in force,
// so that a reload also changes the log of what it keeps running.
type logSwitch struct {
	out     io.Writer
	current *atomic.Pointer[slog.Handler]
	dress   func(slog.Handler) slog.Handler // adds the attributes of a logger
}

// newLogSwitch returns one that logs as an empty configuration says.
func newLogSwitch(out io.Writer) *logSwitch {
	s := &logSwitch{out: out, current: &atomic.Pointer[slog.Handler]{}, dress: func(h slog.Handler) slog.Handler { return h }}
	s.set("info", "text")
	return s
}

// set goes over to the level and format of an [agent] table.
func (s *logSwitch) set(level, format string) {
	var o slog.HandlerOptions
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil {
		o.Level = l
	}
	var h slog.Handler = slog.NewTextHandler(s.out, &o)
	if format == "json" {
		h = slog.NewJSONHandler(s.out, &o)
	}
	s.current.Store(&h)
}

func (s *logSwitch) Enabled(ctx context.Context, level slog.Level) bool {
	return (*s.current.Load()).Enabled(ctx, level)
}

func (s *logSwitch) Handle(ctx context.Context, r slog.Record) error {
	return s.dress(*s.current.Load()).Handle(ctx, r)
}

func (s *logSwitch) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (s *logSwitch) WithGroup(name string) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *logSwitch) with(more func(slog.Handler) slog.Handler) slog.Handler {
	dress := s.dress
	return &logSwitch{s.out, s.current, func(h slog.Handler) slog.Handler { return more(dress(h)) }}
}
