// Package file is the output file: points as lines in a file that is rotated by
// size, or by logrotate.
package file

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sockwatch/agent/metric"
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
		Why:      "The pid is a tag of custom_port_exporter: a series for each process that ever listened. Leave that point to Prometheus.",
	},
	Telegraf: plugin.Telegraf{Options: map[string]string{
		"files":             `write path = "FILE" in an [[outputs.file]] for each, or [[outputs.stdout]] for "stdout"`,
		"rotation_interval": "leave it out: files are rotated by size, or by logrotate",
		"use_batch_format":  "leave it out: every point is a line",
	}},
})

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	out := &output{encoder: format.New(o.DataFormat, o.TimestampFormat), log: logFile{options: o, log: env.Log}}
	out.lines = lines.NewWriter(out.log.write)
	return out, nil
}

type output struct {
	encoder format.Encoder
	lines   *lines.Writer
	log     logFile
}

// MaxBytes bounds what one Push takes.
func (f *output) MaxBytes() int { return lines.MaxBytes }

// Encode appends the point as one line without its newline.
func (f *output) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return f.encoder.Append(dst, p)
}

// Restamp appends a record with another time.
func (f *output) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	return f.encoder.Restamp(dst, record, t)
}

// Push writes records as lines. The kernel has them when it returns: they outlive
// the program, but not a crash of the host before the kernel has written them.
func (f *output) Push(ctx context.Context, records [][]byte) error {
	err := f.lines.Push(ctx, records)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%q hangs: %w", f.log.options.Path, err)
	}
	return err
}

// Close closes the file.
func (f *output) Close() error { return f.lines.Close(f.log.close) }
