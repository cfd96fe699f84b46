package plugin_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// directoryOptions are the options of [[inputs.directory]].
type directoryOptions struct {
	// Directory whose entries are counted.
	Path string `toml:"path"`
}

func (o *directoryOptions) Validate() error {
	if o.Path == "" {
		return plugin.Invalid("path", "is required")
	}
	return nil
}

// directory is an input. Its options are all that it needs.
type directory struct{ options directoryOptions }

// Gather returns a complete snapshot: one point per directory.
func (d directory) Gather(context.Context) (metric.Batch, error) {
	entries, err := os.ReadDir(d.options.Path)
	if err != nil {
		return metric.Batch{}, err
	}
	return metric.Batch{Time: time.Now(), Points: []metric.Point{{
		Name:   "directory",
		Tags:   metric.NewTags("path", d.options.Path),
		Fields: []metric.Field{{Key: "entries", Value: metric.Int(int64(len(entries)))}},
	}}}, nil
}

// An input counts the entries of a directory. Its definition is one row of
// cmd/sockwatch/plugins.go; the agent does the rest.
func ExampleInput() {
	p := plugin.DefineInput(plugin.Definition[directoryOptions, plugin.Input]{
		Name:     "directory",
		Defaults: func() directoryOptions { return directoryOptions{Path: "/var/spool/mail"} },
		Descs:    []metric.Desc{{Name: "directory", Field: "entries", Type: metric.Gauge, Help: "Entries of the directory"}},
		New:      func(o directoryOptions, _ plugin.Env) (plugin.Input, error) { return directory{o}, nil },
	})

	// What the agent does with it:
	options := p.Defaults().(*directoryOptions)
	options.Path = "/proc/self/task/self-test"
	in, err := p.NewInput(options, plugin.Env{})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = in.Gather(context.Background())
	fmt.Println(err)

	options.Path = ""
	fmt.Println(options.Validate())
	// Output:
	// open /proc/self/task/self-test: no such file or directory
	// path: is required
}
