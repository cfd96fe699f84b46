package prometheus

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func at(address, port string, more ...string) metric.Point {
	return point("tcp_listen", 1, append([]string{"address", address, "port", port}, more...)...)
}

func TestDiscovery(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", at("0.0.0.0", "80", "process", "a\nb", "a.b", "1"), at("127.0.0.1", "9090", "exposure", "loopback")))
	r := get(t, e, board, sdPath)
	if got := r.Header.Get("Content-Type"); r.StatusCode != 200 || got != "application/json" {
		t.Errorf("status %d, Content-Type %q", r.StatusCode, got)
	}
	want := `[{"targets":["web-1.example:80"],"labels":{"__meta_sockwatch_a_b":"1","__meta_sockwatch_address":"0.0.0.0","__meta_sockwatch_name":"tcp_listen","__meta_sockwatch_port":"80","__meta_sockwatch_process":"a\nb"}},` +
		`{"targets":["127.0.0.1:9090"],"labels":{"__meta_sockwatch_address":"127.0.0.1","__meta_sockwatch_exposure":"loopback","__meta_sockwatch_name":"tcp_listen","__meta_sockwatch_port":"9090"}}]`
	if diff := cmp.Diff(want, bodyOf(t, r)); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

// targets queries the discovery of a host and returns the targets, one per line.
func targets(t *testing.T, e *endpoint, board *fakeBoard, host, query string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, sdPath+query, nil)
	r.Host = host
	w := httptest.NewRecorder()
	testHandler(e, board).ServeHTTP(w, r)
	if w.Code != 200 {
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	var groups []targetGroup
	if err := json.Unmarshal(w.Body.Bytes(), &groups); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	var all []string
	for _, g := range groups {
		all = append(all, g.Targets...)
	}
	return w.Code, strings.Join(all, " ")
}

func TestDiscoveryAddresses(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	for _, test := range []struct{ address, port, want string }{
		{"0.0.0.0", "80", "host:80"},
		{"::", "80", "host:80"},
		{"0.0.0.0%eth0", "80", "host:80"},
		{"::%eth0", "80", "host:80"},
		{"::ffff:0.0.0.0", "80", "host:80"},
		{"10.0.0.1", "80", "10.0.0.1:80"},
		{"10.0.0.1%eth0", "80", "10.0.0.1:80"},
		{"::1", "80", "[::1]:80"},
		{"2001:db8::1%eth0", "80", "[2001:db8::1]:80"},
		{"fe80::1%eth0", "80", "[fe80::1%eth0]:80"},
		{"::ffff:10.0.0.1", "80", "10.0.0.1:80"},
		{"nonsense", "80", ""},
		{"", "80", ""},
		{"%eth0", "80", ""},
		{"10.0.0.1", "", ""},
		{"10.0.0.1", "0", ""},
		{"10.0.0.1", "65536", ""},
		{"10.0.0.1", "tcp 0.0.0.0:8080", ""},
	} {
		board := boardOf(batch("tcp_listen", at(test.address, test.port)))
		if _, got := targets(t, e, board, "host:8088", ""); got != test.want {
			t.Errorf("%s port %s: %q, want %q", test.address, test.port, got, test.want)
		}
	}
}

func TestDiscoveryQuery(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(
		batch("other", point("custom_port_exporter", 1, "port", "tcp 0.0.0.0:80"), point("no_listener", 1)),
		batch("tcp_listen",
			at("0.0.0.0", "80", "exposure", "public", "process", "nginx"),
			at("::", "443", "exposure", "public", "process", "caddy"),
			at("10.0.0.1", "81", "exposure", "private", "process", "nginx"),
			at("127.0.0.1", "82", "exposure", "loopback"),
		))
	for _, test := range []struct {
		host, query string
		status      int
		want        string
	}{
		{host: "h:1", query: "", status: 200, want: "h:80 h:443 10.0.0.1:81 127.0.0.1:82"},
		{host: "h", query: "", status: 200, want: "h:80 h:443 10.0.0.1:81 127.0.0.1:82"},
		{host: "[2001:db8::1]:8088", query: "?exposure=public", status: 200, want: "[2001:db8::1]:443"},
		{host: "[2001:db8::1]", query: "?port=443", status: 200, want: "[2001:db8::1]:443"},
		{host: "10.9.9.9", query: "?exposure=public&exposure=private", status: 200, want: "10.9.9.9:80 10.9.9.9:443 10.0.0.1:81"},
		{host: "h", query: "?exposure=public&process=nginx", status: 200, want: "h:80"},
		{host: "h", query: "?exposure=public&address=192.0.2.7", status: 200, want: "192.0.2.7:80 192.0.2.7:443"},
		{host: "h", query: "?address=2001:db8::7&exposure=public", status: 200, want: "[2001:db8::7]:443"},
		{host: "h", query: "?process=", status: 200, want: "127.0.0.1:82"}, // listeners without the tag
		{host: "h", query: "?process=none", status: 200, want: ""},
		{host: "h", query: "?proces=nginx", status: 400, want: `unknown tag "proces": known are address, exposure, port, process`},
		{host: "h", query: "?exposure=public&=", status: 400, want: `unknown tag "": known are address, exposure, port, process`},
		{host: "", query: "", status: 200, want: "10.0.0.1:81 127.0.0.1:82"}, // no name for a wildcard
		{host: "h", query: "?address=", status: 200, want: "10.0.0.1:81 127.0.0.1:82"},
		{host: "h", query: "?address=a/b", status: 400, want: "the address for wildcards is neither an IP address nor a host name"},
		{host: `"><script>`, query: "", status: 400, want: "the address for wildcards is neither an IP address nor a host name"},
		{host: "h", query: "?%zz", status: 400, want: `invalid URL escape "%zz"`},
	} {
		status, got := targets(t, e, board, test.host, test.query)
		if status != test.status || got != test.want {
			t.Errorf("%s%s: %d %q, want %d %q", test.host, test.query, status, got, test.status, test.want)
		}
	}
}

// TestDiscoveryOfFamilies: a listener on a wildcard is not a target at an address whose
// family it does not accept.
func TestDiscoveryOfFamilies(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen",
		at("0.0.0.0", "1", "family", "ipv4"), at("::", "2", "family", "ipv6"), at("::", "3", "family", "dual"), at("::", "4"),
		at("10.0.0.1", "5", "family", "ipv4"), at("2001:db8::5", "6", "family", "ipv6"),
	))
	const specific = " 10.0.0.1:5 [2001:db8::5]:6"
	for _, test := range []struct{ host, query, want string }{
		{"192.0.2.1:8088", "", "192.0.2.1:1 192.0.2.1:3 192.0.2.1:4" + specific},
		{"[2001:db8::1]:8088", "", "[2001:db8::1]:2 [2001:db8::1]:3 [2001:db8::1]:4" + specific},
		{"[::ffff:192.0.2.1]", "", "[::ffff:192.0.2.1]:1 [::ffff:192.0.2.1]:3 [::ffff:192.0.2.1]:4" + specific},
		{"[2001:db8::1]:8088", "?address=192.0.2.7&port=1&port=2", "192.0.2.7:1"},
		{"192.0.2.1:8088", "?address=2001:db8::7&port=1&port=2", "[2001:db8::7]:2"},
		{"name:8088", "", "name:1 name:2 name:3 name:4" + specific},
	} {
		if _, got := targets(t, e, board, test.host, test.query); got != test.want {
			t.Errorf("%s%s: %q, want %q", test.host, test.query, got, test.want)
		}
	}
}

// TestDiscoveryOfOtherNamespaces: they cannot be reached at this host's addresses.
func TestDiscoveryOfOtherNamespaces(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", at("0.0.0.0", "1"), at("0.0.0.0", "2", "netns", "blue"), at("0.0.0.0", "3", "netns", "red")))
	for _, test := range []struct{ query, want string }{
		{"", "h:1"},
		{"?netns=", "h:1"},
		{"?netns=blue", "h:2"},
		{"?netns=blue&netns=red&netns=", "h:1 h:2 h:3"},
		{"?port=2&port=3", ""},
	} {
		if status, got := targets(t, e, board, "h", test.query); status != 200 || got != test.want {
			t.Errorf("%s: %d %q, want %q", test.query, status, got, test.want)
		}
	}
}

// TestDiscoveryWhileListenersAreUnknown: after an empty list Prometheus would drop all
// targets; after a 503 it keeps them.
func TestDiscoveryWhileListenersAreUnknown(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	listenTags := []string{"address", "port"}
	failure := errors.New("/proc: permission denied")
	unknown := func(name string) string {
		return "the listeners of " + name + " are not known: its last gather failed, or its first has not ended"
	}
	own, empty := batch("sockwatch", point("sockwatch_input_up", 0)), batch("tcp_listen")
	for _, test := range []struct {
		name    string
		latest  []*metric.Batch
		sources []plugin.SourceState
		status  int
		want    string
	}{
		{
			name: "no listeners", latest: []*metric.Batch{own, empty}, status: 200,
			sources: []plugin.SourceState{{Name: "tcp_listen", Gathered: true, Tags: listenTags}},
		}, {
			name: "failed", latest: []*metric.Batch{own}, status: 503, want: unknown("tcp_listen"),
			sources: []plugin.SourceState{{Name: "tcp_listen", Gathered: true, Err: failure, Tags: listenTags}},
		}, {
			name: "failed since the board was read", latest: []*metric.Batch{own, empty}, status: 503, want: unknown("tcp_listen"),
			sources: []plugin.SourceState{{Name: "tcp_listen", Gathered: true, Err: failure, Tags: listenTags}},
		}, {
			name: "not published since it was new", latest: []*metric.Batch{own}, status: 503, want: unknown("tcp_listen"),
			sources: []plugin.SourceState{{Name: "tcp_listen", Tags: listenTags}},
		}, {
			name: "one of two failed", latest: []*metric.Batch{empty}, status: 503, want: unknown("tcp_listen-b"),
			sources: []plugin.SourceState{{Name: "tcp_listen", Gathered: true, Tags: listenTags}, {Name: "tcp_listen-b", Err: failure, Tags: listenTags}},
		}, {
			name: "another input failed", latest: []*metric.Batch{own, empty}, status: 200,
			sources: []plugin.SourceState{
				{Name: "cpu", Gathered: true, Err: failure, Tags: []string{"cpu"}}, {Name: "disk", Err: failure},
				{Name: "tcp_listen", Gathered: true, Tags: listenTags},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			board := &fakeBoard{latest: test.latest, sources: test.sources}
			if status, got := targets(t, e, board, "h", ""); status != test.status || got != test.want {
				t.Errorf("%d %q, want %d %q", status, got, test.status, test.want)
			}
		})
	}
}

// TestDiscoveryKnowsTagsOfDefinitions: including those that no point has at the moment.
func TestDiscoveryKnowsTagsOfDefinitions(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := &fakeBoard{
		latest:  []*metric.Batch{batch("tcp_listen", at("0.0.0.0", "1", "site", "a"))},
		sources: []plugin.SourceState{{Name: "tcp_listen", Gathered: true, Tags: []string{"address", "container", "host", "port"}}},
	}
	for _, test := range []struct {
		query  string
		status int
	}{{"?container=x", 200}, {"?host=x", 200}, {"?site=a", 200}, {"?address=192.0.2.1", 200}, {"?pod=x", 400}} {
		if status, got := targets(t, e, board, "h", test.query); status != test.status {
			t.Errorf("%s: %d %q, want %d", test.query, status, got, test.status)
		}
	}
}

func FuzzDiscovery(f *testing.F) {
	f.Add("h:1", "exposure=public", "0.0.0.0%eth0", "80")
	f.Add("[::1%25x]:1", "address=x&a;b", "fe80::1%\xff", "65535")
	f.Fuzz(func(t *testing.T, host, query, address, port string) {
		e, _ := newTestEndpoint(t, nil)
		r := httptest.NewRequest(http.MethodGet, sdPath, nil)
		r.Host, r.URL.RawQuery = host, query
		w := httptest.NewRecorder()
		testHandler(e, boardOf(batch("tcp_listen", at(address, port)))).ServeHTTP(w, r)
		if w.Code == 400 {
			return
		}
		var groups []targetGroup
		if err := json.Unmarshal(w.Body.Bytes(), &groups); w.Code != 200 || err != nil {
			t.Fatalf("status %d: %v: %s", w.Code, err, w.Body)
		}
		for _, g := range groups {
			if len(g.Targets) != 1 || strings.ContainsAny(g.Targets[0], "/\" \n<>") {
				t.Errorf("targets %q", g.Targets)
			}
		}
	})
}
