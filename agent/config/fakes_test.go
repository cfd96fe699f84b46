package config_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// The plugins of these tests have an option of every type that options may have.

type listenOptions struct {
	Backend      string            `toml:"backend"`
	Namespaces   bool              `toml:"namespaces"`
	MaxListeners int               `toml:"max_listeners"`
	OwnerRefresh plugin.Duration   `toml:"owner_refresh"`
	Ratio        float64           `toml:"ratio"`
	CacheTTL     plugin.Duration   `toml:"cache_ttl" deprecated:"write owner_refresh"`
	Labels       map[string]string `toml:"labels"`
	ExpectFile   plugin.Strings    `toml:"expect_file"`
	Expect       []expectOptions   `toml:"expect"`
	Forbid       []expectOptions   `toml:"forbid"`
}

type expectOptions struct {
	Name   string            `toml:"name"`
	Port   int               `toml:"port"`
	Min    int               `toml:"min"`
	Level  string            `toml:"level" deprecated:"write labels"`
	Labels map[string]string `toml:"labels"`
}

func (o *expectOptions) SetDefaults() { o.Min = 1 }

func (o *listenOptions) Includes() plugin.Include {
	return plugin.Include{Option: "expect_file", Tables: []string{"expect", "forbid"}}
}

func (o *listenOptions) Validate() error {
	var errs []error
	if o.Backend != "auto" && o.Backend != "netlink" {
		errs = append(errs, plugin.Invalid("backend", "unknown value %q (known: auto, netlink)", o.Backend))
	}
	if o.MaxListeners <= 0 {
		errs = append(errs, plugin.Invalid("max_listeners", "must be more than 0"))
	}
	for i, e := range o.Expect {
		at := fmt.Sprintf("expect[%d]", i)
		if e.Name == "" {
			errs = append(errs, plugin.Invalid(at+".name", "is missing"))
		}
		if e.Port == 0 {
			errs = append(errs, plugin.Invalid(at, "has no criterion"))
		}
		if _, ok := e.Labels["name"]; ok {
			errs = append(errs, plugin.Invalid(at+".labels.name", "is a tag already: %q", e.Labels["name"]))
		}
	}
	return errors.Join(errs...)
}

type influxOptions struct {
	URLs     []string    `toml:"urls"`
	Database string      `toml:"database"`
	Token    string      `toml:"token" secret:""`
	MaxBody  plugin.Size `toml:"max_body"`

	Headers map[string]string `toml:"headers" secret:""`
}

func (o *influxOptions) Validate() error {
	var errs []error
	for _, u := range o.URLs {
		if !strings.HasPrefix(u, "http://") {
			errs = append(errs, plugin.Invalid("urls", "%q is not a URL", u))
		}
	}
	if o.Database == "" {
		errs = append(errs, errors.New("neither a database nor a bucket is set"))
	}
	return errors.Join(errs...)
}

type pageOptions struct {
	Listen plugin.Strings `toml:"listen"`
}

func (o *pageOptions) Validate() error { return nil }

func (o *pageOptions) Exclusive() []string {
	var claims []string
	for _, l := range o.Listen {
		claims = append(claims, "listen "+strconv.Quote(l))
	}
	return claims
}

type fileOptions struct {
	Path string `toml:"path"`
}

func (o *fileOptions) Validate() error     { return nil }
func (o *fileOptions) Exclusive() []string { return []string{"file " + strconv.Quote(o.Path)} }

// A fake is an instance of any of them; it keeps the arguments of New.
type fake struct {
	options any
	env     plugin.Env
}

func (fake) Gather(context.Context) (metric.Batch, error)        { return metric.Batch{}, nil }
func (fake) Encode(dst []byte, _ *metric.Point) ([]byte, error)  { return dst, nil }
func (fake) Push(context.Context, [][]byte) error                { return nil }
func (fake) Listen(context.Context) error                        { return nil }
func (fake) Serve(ctx context.Context, board plugin.Board) error { return nil }

func fakePlugins() []plugin.Plugin {
	return []plugin.Plugin{
		plugin.DefineInput(plugin.Definition[listenOptions, plugin.Input]{
			Name: "tcp_listen",
			Defaults: func() listenOptions {
				return listenOptions{Backend: "auto", MaxListeners: 5000, OwnerRefresh: plugin.Duration(5 * time.Minute)}
			},
			New: func(o listenOptions, env plugin.Env) (plugin.Input, error) { return fake{o, env}, nil },
		}),
		plugin.DefinePush(plugin.Definition[influxOptions, plugin.Pusher]{
			Name:          "influxdb",
			FlushInterval: 10 * time.Second,
			MinInterval:   time.Minute,
			Defaults:      func() influxOptions { return influxOptions{URLs: []string{"http://127.0.0.1:8086"}, MaxBody: 1 << 20} },
			New: func(o influxOptions, env plugin.Env) (plugin.Pusher, error) {
				if strings.HasPrefix(o.Token, "refused") {
					return nil, plugin.Invalid("token", "is refused")
				}
				return fake{o, env}, nil
			},
		}),
		plugin.DefinePush(plugin.Definition[fileOptions, plugin.Pusher]{
			Name:       "file",
			Telegraf:   plugin.Telegraf{Options: map[string]string{"files": `write path = "FILE"`}},
			MemoryOnly: true,
			Defaults:   func() fileOptions { return fileOptions{Path: "/var/log/x.jsonl"} },
			New:        func(o fileOptions, env plugin.Env) (plugin.Pusher, error) { return fake{o, env}, nil },
		}),
		plugin.DefineEndpoint(plugin.Definition[pageOptions, plugin.Endpoint]{
			Name:     "prometheus",
			Telegraf: plugin.Telegraf{Names: []string{"prometheus_client"}},
			Defaults: func() pageOptions { return pageOptions{Listen: plugin.Strings{":8088"}} },
			New:      func(o pageOptions, env plugin.Env) (plugin.Endpoint, error) { return fake{o, env}, nil },
		}),
	}
}

func fakeHost(env map[string]string) config.Host {
	return config.Host{
		Getenv:   func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Hostname: func() (string, error) { return "web1", nil },
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
		Listen: func(context.Context, string, string) (net.Listener, error) {
			return nil, errors.New("Load opened a socket")
		},
		Version: "1.2.3",
	}
}

// load loads one file called s.toml.
func load(t *testing.T, text string, env map[string]string) *agent.Agent {
	t.Helper()
	a, err := config.Load([]config.File{{Name: "s.toml", Text: text}}, fakePlugins(), fakeHost(env))
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return a
}

// A badFile is a configuration, s.toml, and its errors, one per line.
type badFile struct {
	name string
	text string
	want string
}

func (b badFile) run(t *testing.T) {
	t.Run(b.name, func(t *testing.T) {
		wantErrors(t, []config.File{{Name: "s.toml", Text: b.text}}, nil, b.want)
	})
}

func wantErrors(t *testing.T, files []config.File, env map[string]string, want string) {
	t.Helper()
	a, err := config.Load(files, fakePlugins(), fakeHost(env))
	if err == nil {
		t.Fatalf("Load returned %+v, want the error\n%s", a, want)
	}
	if a != nil {
		t.Error("Load returned both an agent and an error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

// whole appends what a text needs to be a valid configuration, so that no line moves.
func whole(text string) string {
	if !strings.Contains(text, "inputs") {
		text += "\n[[inputs.tcp_listen]]"
	}
	if !strings.Contains(text, "outputs") {
		text += "\n[[outputs.prometheus]]"
	}
	return text
}
