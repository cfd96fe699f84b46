package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
)

// telegrafFormat is the format of the log that Telegraf's inputs.execd reads from
// stderr: a level such as "E! ", then the message. Telegraf adds the time.
const telegrafFormat = "telegraf"

// maxTelegrafLine is how long a line of the log may be. Telegraf stops reading at one
// of 64 KiB (bufio.MaxScanTokenSize), and the log would then fill its pipe.
const maxTelegrafLine = 32 << 10

// A telegrafHandler writes log records in telegrafFormat, one line each.
type telegrafHandler struct {
	out    *lockedWriter
	level  slog.Leveler
	extend func(slog.Handler) slog.Handler // adds the attributes of a logger
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func newTelegrafHandler(out io.Writer, level slog.Leveler) *telegrafHandler {
	if level == nil {
		level = slog.LevelInfo
	}
	return &telegrafHandler{&lockedWriter{w: out}, level, func(h slog.Handler) slog.Handler { return h }}
}

func (h *telegrafHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *telegrafHandler) Handle(ctx context.Context, r slog.Record) error {
	line := bytes.NewBufferString(telegrafLevel(r.Level) + printable(r.Message) + " ")
	text := slog.NewTextHandler(line, &slog.HandlerOptions{Level: r.Level, ReplaceAttr: attributesAlone})
	attributes := slog.NewRecord(r.Time, r.Level, "", 0)
	r.Attrs(func(a slog.Attr) bool {
		attributes.AddAttrs(a)
		return true
	})
	if err := h.extend(text).Handle(ctx, attributes); err != nil {
		return err
	}
	_, err := h.out.Write(cutLine(line.Bytes()))
	return err
}

// telegrafLevel returns the prefix of a level.
func telegrafLevel(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "E! "
	case level >= slog.LevelWarn:
		return "W! "
	case level >= slog.LevelInfo:
		return "I! "
	default:
		return "D! "
	}
}

// attributesAlone removes everything but the attributes from a record.
func attributesAlone(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

// cutLine returns a line of at most maxTelegrafLine, without a blank at its end.
func cutLine(line []byte) []byte {
	line = bytes.TrimRight(line, " \n")
	if len(line) > maxTelegrafLine {
		line = append(bytes.ToValidUTF8(line[:maxTelegrafLine], nil), "…"...)
	}
	return append(line, '\n')
}

func (h *telegrafHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

func (h *telegrafHandler) WithGroup(name string) slog.Handler {
	return h.with(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h *telegrafHandler) with(more func(slog.Handler) slog.Handler) slog.Handler {
	extend := h.extend
	return &telegrafHandler{h.out, h.level, func(next slog.Handler) slog.Handler { return more(extend(next)) }}
}

// An errorLines is a writer that adds the prefix of an error to each line, which must be
// written one at a time.
type errorLines struct{ io.Writer }

func (w errorLines) Write(line []byte) (int, error) {
	if _, err := w.Writer.Write(cutLine(append([]byte("E! "), line...))); err != nil {
		return 0, err
	}
	return len(line), nil
}
