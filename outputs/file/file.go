// Package file is the output file: points as lines in a file that is rotated by size or by
// logrotate.
package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
	"sockwatch/outputs/internal/lines"
)

// Plugin is the output file.
var Plugin = plugin.DefinePush(plugin.Definition[Options, plugin.Pusher]{
	Name:       "file",
	Defaults:   Defaults,
	Example:    Example,
	New:        New,
	MemoryOnly: true,
	Sample: plugin.Sample{
		NameDrop: []string{"custom_port_exporter"},
		Why:      "custom_port_exporter has the pid as a tag, so every process that listens makes a new series. Leave that point to Prometheus.",
	},
	Telegraf: plugin.Telegraf{Options: map[string]string{
		"compression_algorithm": "leave it out: only logrotate compresses files",
		"compression_level":     "leave it out: only logrotate compresses files",
		"files":                 `write path = "FILE" in an [[outputs.file]] for each, or [[outputs.stdout]] for "stdout"`,
		"rotation_interval":     "leave it out: files are rotated by size, or by logrotate",
		"use_batch_format":      "leave it out: every point is a line",
	}},
})

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	return &output{options: o, Encoder: format.New(o.DataFormat, o.TimestampFormat), stream: newStream(env.Log)}, nil
}

type output struct {
	format.Encoder
	options Options
	stream  *stream
}

// A stream is the file, and the state of the lines written to it.
type stream struct {
	lines *lines.Writer
	file  *logFile
}

func newStream(log *slog.Logger) *stream {
	return &stream{lines: lines.NewWriter(), file: &logFile{log: log}}
}

// InheritFrom continues the stream of the output that this one replaces, if it is the same
// file: a FIFO that hangs may have accepted part of a line, and its reader must not see an
// end of file.
func (f *output) InheritFrom(predecessor plugin.Pusher) {
	old, ok := predecessor.(*output)
	if ok && filepath.Clean(old.options.Path) == filepath.Clean(f.options.Path) {
		f.stream, old.stream = old.stream, f.stream
	}
}

// MaxBytes limits the size of one Push.
func (f *output) MaxBytes() int { return lines.MaxBytes }

// Push writes records as lines. When it returns, the kernel has them: they survive the end
// of the program, but not a crash of the host before the kernel has written them to disk.
func (f *output) Push(ctx context.Context, records [][]byte) error {
	err := f.stream.lines.Push(ctx, records, func(b []byte) (int, error) { return f.stream.file.write(&f.options, b) })
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%q hangs: %w", f.options.Path, err)
	}
	return err
}

// Close closes the file.
func (f *output) Close() error { return f.stream.lines.Close(f.stream.file.close) }
