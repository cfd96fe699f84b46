// Package livepage is the page for people that the output prometheus serves: what listens
// on this host, what has changed, and how sockwatch itself is.
//
// The files follow a request. This one routes. guard.go decides who may see what. query.go
// parses the search, snapshot.go turns the latest batches into rows, and view.go selects
// what one reader sees. timeline.go, alerts.go and health.go add events, rules and the state
// of the agent. listener.go is the page of one listener, api.go answers scripts, and live.go
// keeps an open page current. templates/ has the HTML, assets/ what it loads.
package livepage

import (
	"bytes"
	"html/template"
	"log/slog"
	"net/http"
	"strings"

	"sockwatch/agent/plugin"
)

// Options are what the page needs to know in addition to the Board.
type Options struct {
	Hostname string
	Version  string
	Log      *slog.Logger
	// Hosts are further hosts that a request may name: names or globs, in lower case. IP
	// addresses, localhost and Hostname are always accepted.
	Hosts plugin.Globs
	// Trusted reports whether a request has authenticated, or comes from this host.
	Trusted func(*http.Request) bool
	// Links are the other pages of the endpoint.
	Links []Link
}

// A Link is a link to another page of the endpoint.
type Link struct{ Text, Path string }

// Routes of the page. Detail pages are below listenerPath, assets below assetsPath.
const (
	rootPath         = "/"
	listenerPath     = "/listener/"
	eventsPath       = "/events"
	healthPath       = "/health"
	assetsPath       = "/assets/"
	streamPath       = "/stream"
	apiListenersPath = "/api/listeners"
	apiEventsPath    = "/api/events"
)

// A Page answers the requests of people and scripts. Make one with New.
type Page struct {
	opts      Options
	board     plugin.Board
	assets    assets
	templates *template.Template
	cache     snapshotCache
	live      *live
}

// New returns the page of a board.
func New(o Options, board plugin.Board) *Page {
	p := &Page{opts: o, board: board, assets: newAssets(), live: newLive()}
	p.templates = newTemplates(p)
	return p
}

// Serves reports whether a path belongs to the page.
func Serves(path string) bool {
	switch path {
	case rootPath, eventsPath, healthPath, streamPath, apiListenersPath, apiEventsPath:
		return true
	default:
		return strings.HasPrefix(path, listenerPath) || strings.HasPrefix(path, assetsPath)
	}
}

// ServeHTTP answers a GET or HEAD request without a body.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	trusted := p.opts.Trusted(r)
	switch path := r.URL.Path; {
	case path == rootPath:
		p.answer(w, "page", p.view(parseQuery(r.URL.Query()), trusted))
	case path == streamPath:
		p.stream(w, r)
	default:
		http.NotFound(w, r)
	}
}

// answer answers with one template.
func (p *Page) answer(w http.ResponseWriter, name string, data any) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
