// Package stdout is the output stdout: points as lines on standard output.
package stdout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
	"sockwatch/outputs/internal/lines"
)

// Plugin is the output stdout.
var Plugin = plugin.DefinePush(plugin.Definition[Options, plugin.Pusher]{
	Name:       "stdout",
	Defaults:   Defaults,
	Example:    Example,
	New:        New,
	MemoryOnly: true,
	Sample: plugin.Sample{
		Active:   true,
		NamePass: []string{"tcp_listen*"},
		Why:      "custom_port_exporter has the pid as a tag, so every process that listens makes a new series. Leave that point to Prometheus.",
	},
})

// atomicBytes is the size up to which a pipe accepts a write as a whole or not at all
// (PIPE_BUF in pipe(7)). Such a write cannot be cut by the end of the program, or mixed
// with the log if both go to the same pipe.
const atomicBytes = 4096

// New returns the output of one instance.
func New(o Options, _ plugin.Env) (plugin.Pusher, error) {
	return newOutput(o, openStdout), nil
}

func newOutput(o Options, open func() (*os.File, error)) *output {
	return &output{Encoder: format.New(o.DataFormat, o.TimestampFormat), stream: &stream{lines: lines.NewWriter(), open: open}}
}

type output struct {
	format.Encoder
	stream *stream
}

// InheritFrom continues the stream of the output that this one replaces: a reader that
// hangs may have accepted part of a line.
func (s *output) InheritFrom(predecessor plugin.Pusher) {
	if old, ok := predecessor.(*output); ok {
		s.stream, old.stream = old.stream, s.stream
	}
}

// MaxBytes limits the size of one Push.
func (s *output) MaxBytes() int { return lines.MaxBytes }

// Push writes records as lines.
func (s *output) Push(ctx context.Context, records [][]byte) error {
	err := s.stream.lines.Push(ctx, records, s.stream.write)
	switch {
	case errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("the reader of standard output is %w: %w", plugin.ErrGone, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the reader of standard output is slow or hangs: %w", err)
	}
	return err
}

// Close closes the duplicate of standard output.
func (s *output) Close() error { return s.stream.lines.Close(s.stream.close) }

// A stream is standard output.
type stream struct {
	lines *lines.Writer
	open  func() (*os.File, error)
	file  *os.File // nil until the first write
}

// write writes the rest of an incomplete line, if there is one, and whole lines.
func (s *stream) write(b []byte) (written int, err error) {
	if s.file == nil {
		if s.file, err = s.open(); err != nil {
			return 0, err
		}
	}
	for written < len(b) {
		n, err := lines.Write(s.file, b[written:][:lines.Cut(b[written:], atomicBytes)])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (s *stream) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
