package livepage

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// TestHostileNamesAreText in every place where they are shown: they add no element, no
// attribute and no URL of another kind.
func TestHostileNamesAreText(t *testing.T) {
	const evil = `"'><img src=x onerror=alert(1)><script>alert(2)</script>{{.}}` + "`javascript:alert(3)`\x01\u2028"
	hostile := listener(80, evil, "address", evil, "user", evil, "container", evil, "exposure", evil, "unit", "", "netns", evil, "owner", evil, evil, evil)
	hostile = with(with(hostile, "expected", metric.String(evil)), "rule", metric.String(evil))
	events := []metric.Point{
		change(1, "owner_changed", []string{"address", evil, "port", "80", "process", evil}, "previous_process", evil, "previous_user", evil),
		change(2, evil, []string{"name", evil}, "why", evil, evil, evil),
		change(3, "exposure_changed", []string{"address", evil, "port", "80", "exposure", evil}, "cause", "host_address", "previous_exposure", evil),
		change(3, "exposure_changed", []string{"address", evil, "port", "81", "exposure", evil}, "cause", "host_address", "previous_exposure", evil),
	}
	tame := strings.NewReplacer(evil, "tame")
	build := func(evil string) *Page {
		replace := func(points []metric.Point) []metric.Point {
			var list []metric.Point
			for _, p := range points {
				q := metric.Point{Name: p.Name, Time: p.Time}
				for _, t := range p.Tags {
					q.Tags = append(q.Tags, metric.Tag{Key: strings.ReplaceAll(tame.Replace(t.Key), "tame", evil), Value: strings.ReplaceAll(tame.Replace(t.Value), "tame", evil)})
				}
				for _, f := range p.Fields {
					v := f.Value
					if v.Kind() == metric.KindString {
						v = metric.String(strings.ReplaceAll(tame.Replace(v.String()), "tame", evil))
					}
					q.Fields = append(q.Fields, metric.Field{Key: strings.ReplaceAll(tame.Replace(f.Key), "tame", evil), Value: v})
				}
				list = append(list, q)
			}
			return list
		}
		board := boardOf(replace([]metric.Point{hostile, rule("expect", evil, 0), violated("verdict", "forbidden", "rule", evil, "address", evil, "port", "80", "process", evil), violated("verdict", "no", "user", evil)})...)
		board.latest[0].Partial = evil
		board.events = replace(events)
		board.sources[0].Limits = []string{evil}
		board.sources = append(board.sources, plugin.SourceState{Name: evil, Gathered: true, Err: errorText(evil)})
		board.health = plugin.Health{Outputs: []plugin.OutputState{{Name: evil, Err: errorText(evil)}}, Config: plugin.ConfigState{Err: errorText(evil)}}
		board.details = detailsOf(plugin.DetailSection{Title: evil, Details: []plugin.Detail{{Name: evil, Value: evil}}})
		p := pageOf(board)
		p.opts.Hostname = evil
		p.opts.Hosts, _ = plugin.CompileGlobs([]string{"web-1"})
		return p
	}
	bad, good := build(evil), build("!tame")
	for _, path := range []string{"/?q=" + url.QueryEscape(evil) + "&sort=" + url.QueryEscape(evil), "/?q=80", "/events", "/events?q=" + url.QueryEscape(evil), "/health", "/listener/ID"} {
		of := func(p *Page, name string) []*html.Node {
			id := p.snapshot().rows[0].ID
			return parse(t, body(t, get(p, strings.ReplaceAll(strings.ReplaceAll(path, url.QueryEscape(evil), name), "ID", id), "Authorization", "x")))
		}
		elements, want := of(bad, url.QueryEscape(evil)), of(good, "%21tame")
		if len(elements) != len(want) {
			t.Errorf("%s has %d elements, with tame names %d", path, len(elements), len(want))
			continue
		}
		for i, e := range elements {
			if e.Data != want[i].Data || len(e.Attr) != len(want[i].Attr) {
				t.Errorf("%s: <%s> %v where tame names give <%s> %v", path, e.Data, e.Attr, want[i].Data, want[i].Attr)
			}
			for _, a := range e.Attr {
				if (a.Key == "href" || a.Key == "src" || a.Key == "action") && !strings.HasPrefix(a.Val, "/") && a.Val != "#timeline" || strings.HasPrefix(a.Key, "on") || a.Key == "style" {
					t.Errorf("%s: <%s %s=%q>", path, e.Data, a.Key, a.Val)
				}
			}
		}
	}
}

// TestNothingIsInlineOrFromElsewhere, because the Content-Security-Policy forbids it.
func TestNothingIsInlineOrFromElsewhere(t *testing.T) {
	p := pageOf(ill())
	for _, path := range []string{"/", "/events", "/health", "/listener/" + p.snapshot().rows[0].ID} {
		for _, e := range parse(t, body(t, get(p, path, "Authorization", "x"))) {
			if e.Data == "style" || e.Data == "script" && (attribute(e, "src") == "" || e.FirstChild != nil) {
				t.Errorf("%s has an inline <%s>", path, e.Data)
			}
			for _, a := range e.Attr {
				if a.Key == "style" || strings.HasPrefix(a.Key, "on") || strings.Contains(a.Val, "//") {
					t.Errorf("%s has <%s %s=%q>", path, e.Data, a.Key, a.Val)
				}
			}
		}
	}
}

func TestHeadHasTheHeaderOfGet(t *testing.T) {
	server := httptest.NewServer(pageOf(five()))
	defer server.Close()
	for _, path := range []string{"/", "/events", "/health", "/api/listeners", "/api/events"} {
		r, err := server.Client().Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if body(t, r) != "" || r.ContentLength <= 0 && r.Header.Get("Content-Encoding") == "" || r.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: length %d, header %v", path, r.ContentLength, r.Header)
		}
	}
}

// TestHostileSearchesAreAnswered: the longest that a request can carry, and worse.
func TestHostileSearchesAreAnswered(t *testing.T) {
	p := pageOf(five())
	for name, q := range map[string]string{
		"64 KiB":       strings.Repeat("x", 64<<10),
		"NULs":         strings.Repeat("\x00", 1000),
		"10,000 terms": strings.Repeat("port:1 ", 10000),
		"no UTF-8":     "\xff\xfe process:\xff",
		"brackets":     strings.Repeat("[", 1000) + " unit:" + strings.Repeat("{", 500),
		"quotes":       strings.Repeat(`"`, 999),
	} {
		for _, path := range []string{"/?q=", "/events?q="} {
			if page := body(t, get(p, path+url.QueryEscape(q))); len(page) > 100<<10 {
				t.Errorf("%s%s: %d bytes", path, name, len(page))
			}
		}
	}
	for _, query := range []string{"?q=%zz", "?sort=%00", "?from=-1", "?from=99999999999999999999", "?q=a;b", "?" + strings.Repeat("q=x&", 1000)} {
		for _, path := range []string{"/", "/events"} {
			if r := get(p, path+query); r.StatusCode != http.StatusOK {
				t.Errorf("%s%.20s: status %d", path, query, r.StatusCode)
			}
		}
	}
}

func TestUnknownPathsAre404(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/events": true, "/health": true, "/stream": true, "/api/listeners": true, "/api/events": true, "/listener/x": true, "/assets/x": true,
		"/x": false, "/events/": false, "/api": false, "/api/": false, "/api/x": false, "/listener": false, "/metrics": false, "/assets": false,
	} {
		if got := Serves(path); got != want {
			t.Errorf("Serves(%q) = %v, want %v", path, got, want)
		}
	}
}

// TestPagesSayWhenTheyWereMade: in an incident nobody may take an old page for the current state. The
// page of listeners has the time of the gather, until its script replaces it.
func TestPagesSayWhenTheyWereMade(t *testing.T) {
	p := pageOf(five())
	for path, want := range map[string]bool{"/": false, "/events": true, "/health": true, "/listener/" + p.snapshot().rows[0].ID: true} {
		if got := strings.Contains(body(t, get(p, path)), ", reload to update."); got != want {
			t.Errorf("%s says that it is not live: %v, want %v", path, got, want)
		}
	}
	for want, board := range map[string]*fakeBoard{"as of 2026-11-22 10:00:00": five(), "": {}} {
		if got := textOf(byID(t, parse(t, body(t, get(pageOf(board), "/"))), "static")); got != want {
			t.Errorf("the page of listeners says %q, want %q", got, want)
		}
	}
}
