package livepage

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// documents are the paths of HTML pages, and others what only the page's own scripts and
// programs request.
var (
	documents = []string{"/", "/?q=x", "/events", "/health", "/listener/0"}
	others    = []string{"/api/listeners", "/api/events", "/stream", "/assets/x"}
)

func TestHostsOfOthersAreRefused(t *testing.T) {
	hosts, err := plugin.CompileGlobs([]string{"*.corp.example"})
	if err != nil {
		t.Fatal(err)
	}
	var refused []Reason
	p := New(Options{Hostname: "Web-1", Hosts: hosts, Trusted: func(*http.Request) bool { return true },
		Served: func(Kind) {}, Refused: func(r Reason) { refused = append(refused, r) }}, five())
	for _, test := range []struct {
		host string
		want bool
	}{
		{"127.0.0.1", true}, {"127.0.0.1:8088", true}, {"[::1]:8088", true}, {"[::1]", true}, {"192.0.2.1:80", true}, {"[fe80::1%25eth0]:8088", true},
		{"localhost", true}, {"localhost:8088", true}, {"localhost:", true}, {"localhost:http", false}, {"LocalHost.", true},
		{"web-1", true}, {"WEB-1:8088", true}, {"web-1.corp.example:8088", true}, {"x.Corp.Example.", true},
		{"", false}, {"evil.example", false}, {"evil.example:8088", false}, {"web-1.evil.example", false}, {"corp.example", false},
		{"x.corp.example.evil", false}, {"localhost.evil.example", false}, {"127.0.0.1.evil.example", false}, {"127.0.0.1:8088.evil", false}, {"[::1].evil", false},
	} {
		for _, path := range slices.Concat(documents, others) {
			r := httptest.NewRequest(http.MethodHead, "http://x"+path, nil)
			r.Host = test.host
			w := httptest.NewRecorder()
			refused = nil
			p.ServeHTTP(w, r)
			if got := w.Code != http.StatusForbidden; got != test.want || len(refused) != btoi(!test.want) {
				t.Errorf("%s of %q: status %d, counted %q", path, test.host, w.Code, refused)
			}
		}
	}
	r := httptest.NewRequest(http.MethodGet, "http://evil.example/", nil)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	want := "the page is not served under the name \"evil.example\": use an IP address, localhost or this host's name, or add the name to page_hosts in [[outputs.prometheus]]\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestCrossSiteRequestsAreRefused, except for a link to one of the HTML pages.
func TestCrossSiteRequestsAreRefused(t *testing.T) {
	p := pageOf(five())
	for _, test := range []struct {
		name           string
		header         []string
		wantDocument   bool
		wantEverything bool
	}{
		{name: "no browser", wantDocument: true, wantEverything: true},
		{name: "typed", header: []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, wantDocument: true, wantEverything: true},
		{name: "own script", header: []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, wantDocument: true, wantEverything: true},
		{name: "own origin", header: []string{"Origin", "http://web-1:8088"}, wantDocument: true, wantEverything: true},
		{name: "link on another site", header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, wantDocument: true},
		{name: "link on another port", header: []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, wantDocument: true},
		{name: "frame", header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
		{name: "script", header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors", "Origin", "https://evil.example"}},
		{name: "image", header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}},
		{name: "script of another port", header: []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}},
		{name: "site without a mode", header: []string{"Sec-Fetch-Site", "cross-site"}},
		{name: "foreign origin", header: []string{"Origin", "http://evil.example"}},
		{name: "origin of another port", header: []string{"Origin", "http://web-1:3000"}},
		{name: "no origin", header: []string{"Origin", "null"}},
		{name: "unknown value", header: []string{"Sec-Fetch-Site", "x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range documents {
				if got := get(p, path, test.header...).StatusCode != http.StatusForbidden; got != test.wantDocument {
					t.Errorf("%s is answered: %v, want %v", path, got, test.wantDocument)
				}
			}
			for _, path := range []string{"/api/listeners", "/api/events", "/assets/x"} {
				if got := get(p, path, test.header...).StatusCode != http.StatusForbidden; got != test.wantEverything {
					t.Errorf("%s is answered: %v, want %v", path, got, test.wantEverything)
				}
			}
		})
	}
}

func TestEveryResponseIsProtected(t *testing.T) {
	p := pageOf(five())
	for _, path := range slices.Concat(documents, []string{"/api/listeners", "/api/events", "/assets/x", "/api/events?x=y"}) {
		for _, host := range []string{"web-1", "evil.example"} {
			r := httptest.NewRequest(http.MethodGet, "http://"+host+path, nil)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			got := map[string]string{}
			for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Cache-Control"} {
				got[name] = w.Header().Get(name)
			}
			want := map[string]string{
				"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
				"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
				"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s of %s (-want +got):\n%s", path, host, diff)
			}
		}
	}
}

func TestVisibility(t *testing.T) {
	for _, test := range []struct {
		key  string
		kind metric.Kind
		tag  bool
		want audience
	}{
		{key: "process", kind: metric.KindString, tag: true, want: everyone},
		{key: "team", kind: metric.KindString, tag: true, want: everyone},
		{key: "cmdline", kind: metric.KindString, want: nobody},
		{key: "cmdline", kind: metric.KindString, tag: true, want: nobody},
		{key: "exe", kind: metric.KindString, want: trustedOnly},
		{key: "exe", kind: metric.KindString, tag: true, want: trustedOnly},
		{key: "exe_sha256", kind: metric.KindString, want: trustedOnly},
		{key: "exe_deleted", kind: metric.KindBool, want: everyone},
		{key: "previous_exe", kind: metric.KindString, want: trustedOnly},
		{key: "previous_process", kind: metric.KindString, want: everyone},
		{key: "parent_pid", kind: metric.KindInt, want: trustedOnly},
		{key: "parent_process", kind: metric.KindString, want: trustedOnly},
		{key: "login_uid", kind: metric.KindInt, want: trustedOnly},
		{key: "why", kind: metric.KindString, want: trustedOnly},
		{key: "of_the_future", kind: metric.KindString, want: trustedOnly},
		{key: "of_the_future", kind: metric.KindFloat, want: everyone},
		{key: "expected", kind: metric.KindString, want: everyone},
	} {
		if got := visibility(test.key, test.kind, test.tag); got != test.want {
			t.Errorf("%s (kind %v, tag %v): %v, want %v", test.key, test.kind, test.tag, got, test.want)
		}
	}
}

// TestSecretsStayWithTrustedReaders on every page and in the API, also in what a search
// finds.
func TestSecretsStayWithTrustedReaders(t *testing.T) {
	board := boardOf(with(listener(80, "nginx"), "exe_sha256", metric.String("inner-sha")), metric.Point{Name: "m", Tags: metric.NewTags("x", "y"), Fields: []metric.Field{{Key: "v", Value: metric.Int(1)}}})
	board.latest[0].Partial = "inner-partial"
	board.events = []metric.Point{change(1, "owner_changed", []string{"address", "0.0.0.0", "port", "80", "process", "nginx"},
		"exe", "/inner/exe", "previous_exe", "/inner/previous", "exe_changed", "true", "parent_process", "inner-parent", "parent_exe", "/inner/parent", "why", "inner-why",
		"cmdline", "nginx --password=secret", "previous_process", "apache2")}
	board.sources[0].Limits = []string{"inner-limit"}
	board.sources = append(board.sources, plugin.SourceState{Name: "cpu", Err: errorText("inner-input"), Gathered: true, Since: at})
	board.health = plugin.Health{Outputs: []plugin.OutputState{{Name: "influxdb", Err: errorText("inner-output"), Since: at}}, Config: plugin.ConfigState{Err: errorText("inner-config"), Failed: at}}
	board.details = detailsOf(
		plugin.DetailSection{Title: "Holder", Details: []plugin.Detail{{Name: "pid", Value: "shown-pid"}, {Name: "state", Value: "inner-state", Sensitive: true}, {Name: "exe", Value: "/inner/detail"},
			{Name: "cmdline", Value: "--password=secret"}, {Name: "cgroup", Value: "/inner.slice"}}},
		plugin.DetailSection{Title: "Parent", Details: []plugin.Detail{{Name: "process", Value: "inner-holder", Sensitive: true}}})
	p := pageOf(board)
	id := p.snapshot().rows[0].ID
	inner := []string{"/usr/sbin/nginx", "inner-sha", "inner-partial", "/inner/exe", "/inner/previous", "inner-parent", "/inner/parent", "inner-why", "inner-limit", "inner-input", "inner-output", "inner-config",
		"inner-state", "/inner/detail", "/inner.slice", "inner-holder"}
	shown := map[string]bool{}
	for _, path := range []string{"/", "/events", "/health", "/listener/" + id, "/api/listeners", "/api/events"} {
		stranger, friend := body(t, get(p, path)), body(t, get(p, path, "Authorization", "x"))
		for _, secret := range []string{"password", "secret"} {
			if strings.Contains(stranger+friend, secret) {
				t.Errorf("%s shows arguments", path)
			}
		}
		for _, text := range inner {
			shown[text] = shown[text] || strings.Contains(friend, text)
			if strings.Contains(stranger, text) {
				t.Errorf("%s shows %q to everyone", path, text)
			}
		}
	}
	for _, text := range inner {
		if !shown[text] {
			t.Errorf("no page shows %q to trusted readers", text)
		}
	}
	for _, q := range []string{"inner", "/usr/sbin", "exe:/usr/*", "-exe:/usr/*"} {
		if v := p.view(search(q), false); (v.Left == 0) != (len(v.Messages) == 1) {
			t.Errorf("a search for %q finds %d listeners, with %q", q, v.Left, v.Messages)
		}
	}
	if page := body(t, get(p, "/listener/"+id)); !strings.Contains(page, "shown-pid") || strings.Contains(page, "<h3>Parent</h3>") {
		t.Errorf("details for everyone:\n%s", page)
	}
}
