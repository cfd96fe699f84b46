package prometheus

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"defaults", func(*Options) {}, ""},
		{"every kind of address", func(o *Options) {
			o.Listen = plugin.Strings{":0", "127.0.0.1:8088", "[::1]:8088", "[fe80::1%eth0]:8088", "localhost:9000", "web-1.example:8088", "unix:/run/s.sock", "systemd", "systemd:metrics"}
		}, ""},
		{"no address", func(o *Options) { o.Listen = nil }, `listen: no address: write one such as ":8088"`},
		{"empty address", func(o *Options) { o.Listen = plugin.Strings{""} },
			`listen: "" is not an address: write one such as ":8088", "127.0.0.1:8088", "[::1]:8088" or "unix:/run/sockwatch.sock"`},
		{"bare port", func(o *Options) { o.Listen = plugin.Strings{"8088"} },
			`listen: "8088" is not an address: write one such as ":8088", "127.0.0.1:8088", "[::1]:8088" or "unix:/run/sockwatch.sock"`},
		{"port name", func(o *Options) { o.Listen = plugin.Strings{":http"} }, `listen: ":http": port "http" is not a number from 0 to 65535`},
		{"mistyped address", func(o *Options) { o.Listen = plugin.Strings{"127.0.0.300:8088"} }, `listen: "127.0.0.300:8088": "127.0.0.300" is neither an IP address nor a host name`},
		{"port too high", func(o *Options) { o.Listen = plugin.Strings{":65536"} }, `listen: ":65536": port "65536" is not a number from 0 to 65535`},
		{"port with a sign", func(o *Options) { o.Listen = plugin.Strings{":+80"} }, `listen: ":+80": port "+80" is not a number from 0 to 65535`},
		{"no host name", func(o *Options) { o.Listen = plugin.Strings{"http//x:80"} }, `listen: "http//x:80": "http//x" is neither an IP address nor a host name`},
		{"relative socket", func(o *Options) { o.Listen = plugin.Strings{"unix:s"} }, `listen: "unix:s": the path of a unix socket must begin with "/"`},
		{"long socket", func(o *Options) { o.Listen = plugin.Strings{"unix:/" + strings.Repeat("x", 107)} },
			`listen: "unix:/` + strings.Repeat("x", 107) + `": the path of a unix socket must not be longer than 107 bytes`},
		{"unclean socket", func(o *Options) { o.Listen = plugin.Strings{"unix:/a/../b"} }, `listen: "unix:/a/../b": the path of a unix socket is not in its shortest form`},
		{"nameless systemd", func(o *Options) { o.Listen = plugin.Strings{"systemd:"} }, `listen: "systemd:": the name of a socket must follow systemd: (FileDescriptorName=)`},
		{"twice", func(o *Options) { o.Listen = plugin.Strings{":8088", "0.0.0.0:8088"} }, `listen: "0.0.0.0:8088" is listed twice`},
		{"all errors at once", func(o *Options) { o.Path, o.Listen, o.MaxSeries = "metrics", plugin.Strings{"x", "y"}, 0 },
			`path: "metrics" does not begin with "/"
listen: "x" is not an address: write one such as ":8088", "127.0.0.1:8088", "[::1]:8088" or "unix:/run/sockwatch.sock"
listen: "y" is not an address: write one such as ":8088", "127.0.0.1:8088", "[::1]:8088" or "unix:/run/sockwatch.sock"
max_series: must be more than 0`},
		{"the landing page", func(o *Options) { o.Path = "/" }, `path: "/" is one of the program's own pages`},
		{"the ready page", func(o *Options) { o.Path = "/-/ready" }, `path: "/-/ready" is one of the program's own pages`},
		{"the healthy page", func(o *Options) { o.Path = "/-/healthy" }, `path: "/-/healthy" is one of the program's own pages`},
		{"the discovery", func(o *Options) { o.Path = "/sd/listeners" }, `path: "/sd/listeners" is one of the program's own pages`},
		{"a path of the live page", func(o *Options) { o.Path = "/health" }, `path: "/health" is part of the live page: choose another path, or set page = false`},
		{"a path below the assets", func(o *Options) { o.Path = "/assets/metrics" }, `path: "/assets/metrics" is part of the live page: choose another path, or set page = false`},
		{"a path of the live page that is off", func(o *Options) { o.Path, o.Page = "/health", false }, ""},
		{"a path beside the API", func(o *Options) { o.Path = "/api/metrics" }, ""},
		{"names of the page", func(o *Options) { o.PageHosts = plugin.Strings{"*.corp.example", "web-1"} }, ""},
		{"bad names of the page", func(o *Options) { o.PageHosts = plugin.Strings{"[a", "", "http://web-1", "web-1:8088"} },
			`page_hosts: pattern "[a": "[" without "]"
page_hosts: pattern "": is empty and matches nothing
page_hosts: "http://web-1" is not a host name: leave out the scheme, the port and the path
page_hosts: "web-1:8088" is not a host name: leave out the scheme, the port and the path`},
		{"unclean path", func(o *Options) { o.Path = "/a//b/" }, `path: "/a//b/" is not in its shortest form, "/a/b"`},
		{"query in the path", func(o *Options) { o.Path = "/m?x" }, `path: "/m?x" contains a character that is not allowed in the path of a scrape configuration`},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Defaults()
			test.change(&o)
			got := ""
			if err := o.Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExclusive(t *testing.T) {
	for _, test := range []struct{ listen, want string }{
		{":8088", `listen "0.0.0.0:8088"`},
		{"0.0.0.0:8088", `listen "0.0.0.0:8088"`},
		{"[::]:8088", `listen "0.0.0.0:8088"`},
		{"[::ffff:0.0.0.0]:8088", `listen "0.0.0.0:8088"`},
		{"localhost:8088", `listen "127.0.0.1:8088"`},
		{"[::ffff:127.0.0.1]:8088", `listen "127.0.0.1:8088"`},
		{"[0:0::1]:8088", `listen "[::1]:8088"`},
		{"Web-1:8088", `listen "web-1:8088"`},
		{"unix:/run/s", `listen "unix:/run/s"`},
		{"systemd", `listen "systemd"`},
		{"systemd:metrics", `listen "systemd:metrics"`},
		{"127.0.0.1:0", ""},
		{"nonsense", ""},
	} {
		o := Options{Listen: plugin.Strings{test.listen}}
		if got := strings.Join(o.Exclusive(), ", "); got != test.want {
			t.Errorf("Exclusive of %q = %s, want %s", test.listen, got, test.want)
		}
	}
	var _ plugin.Exclusive = &Options{}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{":8088", "[::1%eth0]:80", "unix:/run/s", "systemd:x", "a:b:c", "[::ffff:1.2.3.4]:1", "unix:", "\x00:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		id := a.identity()
		if id == "" {
			return
		}
		again, err := parseAddress(id)
		if err != nil || again.identity() != id {
			t.Errorf("%q has the identity %q, and that %q, %v", s, id, again.identity(), err)
		}
	})
}
