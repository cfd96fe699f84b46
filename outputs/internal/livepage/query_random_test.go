package livepage

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/soak"
)

// TestRandomSearchesSelectTheSameEverywhere compares the table, its stream and the API with a
// model of the search.
func TestRandomSearchesSelectTheSameEverywhere(t *testing.T) {
	r := rand.New(rand.NewPCG(14, 1))
	var points []metric.Point
	for i := range 60 {
		p := listener(1+r.IntN(9000), pick(r, processes), "address", pick(r, []string{"0.0.0.0", "127.0.0.1", "::", "10.1.2.3", "fe80::1%eth0"}),
			"user", pick(r, []string{"root", "www-data", "a b"}), "exposure", pick(r, exposures[:4]), "netns", fmt.Sprint(i))
		points = append(points, with(p, "backlog", metric.Int(int64(r.IntN(200)))))
	}
	p := pageOf(boardOf(points...))
	p.live.times.life = time.Microsecond // a stream ends after its first message
	for range soak.Times(200) {
		search, model := randomSearch(r)
		var header []string
		if r.IntN(2) == 0 {
			header = []string{"Authorization", "x"}
		}
		var want []string
		for _, row := range p.snapshot().rows {
			if model.matches(row.point, len(header) > 0) {
				want = append(want, row.ID)
			}
		}
		parameter := "?q=" + url.QueryEscape(search)
		for name, ids := range map[string]func(string) []string{"table": tableIDs, "stream": streamIDs, "API": apiIDs} {
			path := map[string]string{"table": "/", "stream": "/stream", "API": "/api/listeners"}[name]
			if diff := cmp.Diff(want, ids(body(t, get(p, path+parameter, header...)))); diff != "" {
				t.Fatalf("%s of %s, trusted %v (-want +got):\n%s", name, search, len(header) > 0, diff)
			}
		}
	}
}

var processes = []string{"nginx", "Nginx-worker", "postgres", "a b", `quo"te`, "x:y", "ünï", ""}

func pick(r *rand.Rand, values []string) string { return values[r.IntN(len(values))] }

// A searchModel is a search as conditions: those of one key are alternatives.
type searchModel struct {
	include, exclude map[string][]func(p *metric.Point, trusted bool) bool
}

func (m searchModel) matches(p *metric.Point, trusted bool) bool {
	holds := func(f func(*metric.Point, bool) bool) bool { return f(p, trusted) }
	for _, alternatives := range m.include {
		if !slices.ContainsFunc(alternatives, holds) {
			return false
		}
	}
	for _, alternatives := range m.exclude {
		if slices.ContainsFunc(alternatives, holds) {
			return false
		}
	}
	return true
}

// randomSearch returns a search and what it means.
func randomSearch(r *rand.Rand) (string, searchModel) {
	m := searchModel{map[string][]func(*metric.Point, bool) bool{}, map[string][]func(*metric.Point, bool) bool{}}
	var terms []string
	for i := range 1 + r.IntN(4) {
		key, text, holds := randomTerm(r)
		id, into, sign := key, m.include, ""
		if key == "" {
			id = fmt.Sprint(i) // each must match
		} else {
			key += ":"
		}
		if r.IntN(4) == 0 {
			into, sign = m.exclude, "-"
		}
		if strings.ContainsAny(text, ` ":`) || r.IntN(5) == 0 {
			text = `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
		}
		into[id] = append(into[id], holds)
		terms = append(terms, sign+key+text)
	}
	return strings.Join(terms, pick(r, []string{" ", "  ", "\t"})), m
}

func randomTerm(r *rand.Rand) (key, text string, holds func(*metric.Point, bool) bool) {
	number := func(p *metric.Point, key string) float64 {
		v, _ := p.Field(key)
		n, _ := v.Number()
		return n
	}
	n := 1 + r.IntN(9000)
	switch r.IntN(6) {
	case 0:
		return "port", fmt.Sprintf("%d-%d,443", n, n+2000), func(p *metric.Point, _ bool) bool {
			port, _ := strconv.Atoi(p.Tag("port"))
			return port >= n && port <= n+2000 || port == 443
		}
	case 1:
		n %= 200
		return "backlog", fmt.Sprint(">=", n), func(p *metric.Point, _ bool) bool { return number(p, "backlog") >= float64(n) }
	case 2:
		glob := pick(r, []string{"nginx", "*o*", "[a-p]*", "?b", "a?b", "x:y", "*"})
		return "process", glob, func(p *metric.Point, _ bool) bool {
			ok, _ := path.Match(glob, p.Tag("process"))
			return ok && p.Tag("process") != ""
		}
	case 3:
		exposure := pick(r, exposures[:])
		return "exposure", exposure, func(p *metric.Point, _ bool) bool { return p.Tag("exposure") == exposure }
	case 4:
		return "address", "10.0.0.0/8,fe80::/10", func(p *metric.Point, _ bool) bool {
			return p.Tag("address") == "10.1.2.3" || p.Tag("address") == "fe80::1%eth0"
		}
	default:
		some := pick(r, []string{"NGINX", "www", `o"t`, "a b", "x:y", "ü", "sbin", "[::]:", "0.0.0.0:4", "eth0"})
		return "", some, func(p *metric.Point, trusted bool) bool {
			values := []string{hostPort(p.Tag("address"), p.Tag("port")), fieldText(p, "pid")}
			for _, t := range p.Tags {
				values = append(values, t.Value)
			}
			if trusted {
				values = append(values, fieldText(p, "exe"))
			}
			return slices.ContainsFunc(values, func(v string) bool { return strings.Contains(strings.ToLower(v), strings.ToLower(some)) })
		}
	}
}

// tableIDs returns the ids of the rows of a page.
func tableIDs(page string) (ids []string) {
	for rest := page; ; {
		_, after, found := strings.Cut(rest, `<tr id="r-`)
		if !found {
			return ids
		}
		ids, rest = append(ids, after[:32]), after[32:]
	}
}

// streamIDs returns the ids of the rows of the first message of a stream.
func streamIDs(message string) (ids []string) {
	_, data, _ := strings.Cut(message, "\ndata: ")
	var u update
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&u); err != nil {
		return []string{err.Error(), message}
	}
	for _, id := range u.Rows.Order {
		ids = append(ids, strings.TrimPrefix(id, "r-"))
	}
	return ids
}

// apiIDs returns the ids of the listeners of a response of the API, from their tags.
func apiIDs(array string) (ids []string) {
	var list []struct {
		Name string
		Tags map[string]string
	}
	if err := json.Unmarshal([]byte(array), &list); err != nil {
		return []string{err.Error(), array}
	}
	for _, l := range list {
		var pairs []string
		for key, value := range l.Tags {
			pairs = append(pairs, key, value)
		}
		ids = append(ids, identity("tcp_listen", &metric.Point{Name: l.Name, Tags: metric.NewTags(pairs...)}))
	}
	return ids
}
