// Package livepage is the page for people that the output prometheus serves: what listens
// on this host, what has changed, and the health of sockwatch itself.
//
// The files follow a request. This one routes, and guard.go decides who may see what. query.go
// has the search (word.go splits it, match.go compiles its values), snapshot.go turns the
// latest batches into rows (row.go) with columns (columns.go), and view.go selects what one
// reader sees. timeline.go does the same for events (entry.go explains one), alerts.go for rules,
// and health.go for the agent. listener.go is the page of one listener, changes.go that of all
// events, and api.go serves scripts. live.go keeps an open page current with what frame.go finds
// changed. cache.go keeps what was made last. render.go executes templates/, which has the HTML,
// and assets.go serves assets/, the files that it loads.
package livepage

import (
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/respond"
)

// Options are what the page needs to know in addition to the Board.
type Options struct {
	Hostname string
	Log      *slog.Logger
	// Hosts are further hosts that a request may name, in lower case. IP addresses,
	// localhost and Hostname are always accepted.
	Hosts plugin.Globs
	// Trusted reports whether a request has authenticated or comes from this host.
	Trusted func(*http.Request) bool
	// Links are the other pages of the endpoint.
	Links []Link
	// Served is called for each request that is answered, and Refused for each that is not.
	Served  func(Kind)
	Refused func(Reason)
}

// A Link is a link to another page of the endpoint.
type Link struct{ Text, Path string }

// A Kind is a kind of request.
type Kind string

// The kinds of request.
const (
	KindPage   Kind = "page"
	KindAsset  Kind = "asset"
	KindAPI    Kind = "api"
	KindStream Kind = "stream"
)

// Kinds returns all kinds of request.
func Kinds() []Kind { return []Kind{KindPage, KindAsset, KindAPI, KindStream} }

// A Reason is why a request is refused.
type Reason string

// The reasons to refuse a request.
const (
	RefusedHost Reason = "host"       // its Host header does not name this host
	RefusedSite Reason = "cross_site" // it comes from a page of another site
	RefusedBusy Reason = "busy"       // too many are being answered
)

// Reasons returns all reasons to refuse a request.
func Reasons() []Reason { return []Reason{RefusedHost, RefusedSite, RefusedBusy} }

// Limits on readers. They are separate from those of scrapes.
const (
	maxPages     = 16       // being made at the same time
	maxAPI       = 4        // responses of the API being made at the same time
	maxDetails   = 2        // readers whose details an input reads at the same time
	maxUnread    = 32 << 20 // bytes of pages that readers have not read yet
	maxUnreadAPI = 32 << 20
)

// Routes. The pages of listeners are below listenerPath, assets below assetsPath.
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

// Serves reports whether a path belongs to the page.
func Serves(path string) bool {
	return isDocument(path) || path == streamPath || path == apiListenersPath || path == apiEventsPath || strings.HasPrefix(path, assetsPath)
}

// A Page answers the requests of people and scripts. Make one with New.
type Page struct {
	opts      Options
	board     plugin.Board
	assets    assets
	templates *template.Template
	pages     *respond.Responder
	api       *respond.Responder
	details   chan struct{} // one for each reader whose details are being read
	snapshots cache[snapshot]
	timelines cache[timeline]
	cached    pageCache
	idle      *time.Timer // calls forget
	live      *live
}

// New returns the page of a board.
func New(o Options, board plugin.Board) *Page {
	p := &Page{opts: o, board: board, assets: newAssets(), live: newLive(), details: make(chan struct{}, maxDetails)}
	p.templates = newTemplates(p)
	p.idle = time.AfterFunc(keepFor, p.forget)
	p.idle.Stop() // until there is a reader
	busy := func() { o.Refused(RefusedBusy) }
	p.pages = respond.New(respond.Options{Log: o.Log, MaxRequests: maxPages, MaxUnread: maxUnread, Refused: busy})
	p.api = respond.New(respond.Options{Log: o.Log, MaxRequests: maxAPI, MaxUnread: maxUnreadAPI, Refused: busy})
	return p
}

// ServeHTTP answers a GET or HEAD request without a body, for a path of Serves.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	if err := p.check(r); err != nil {
		respond.WriteError(w, err)
		return
	}
	trusted := p.opts.Trusted(r)
	switch path := r.URL.Path; {
	case path == rootPath:
		p.opts.Served(KindPage)
		p.pages.Respond(w, r, func() (*respond.Response, error) { return p.listenersPage(r, trusted) })
	case path == eventsPath:
		p.servePage(w, r, func() (*respond.Response, error) {
			return p.html("changes", "Changes", http.StatusOK, p.changes(parseQuery(r.URL.Query()), trusted))
		})
	case path == healthPath:
		p.servePage(w, r, func() (*respond.Response, error) {
			return p.html("agent", "Health", http.StatusOK, p.health(trusted))
		})
	case strings.HasPrefix(path, listenerPath):
		v := p.listener(r.Context(), strings.TrimPrefix(path, listenerPath), trusted)
		p.servePage(w, r, func() (*respond.Response, error) { return p.html("listener", v.title(), v.status(), v) })
	case path == apiListenersPath:
		p.serveAPI(w, r, func() (*respond.Response, error) { return p.apiListeners(r, trusted) })
	case path == apiEventsPath:
		p.serveAPI(w, r, func() (*respond.Response, error) { return p.apiEvents(r, trusted) })
	case path == streamPath:
		p.opts.Served(KindStream)
		p.stream(w, r)
	case strings.HasPrefix(path, assetsPath):
		p.opts.Served(KindAsset)
		p.assets.serve(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (p *Page) servePage(w http.ResponseWriter, r *http.Request, do func() (*respond.Response, error)) {
	p.opts.Served(KindPage)
	p.pages.Respond(w, r, compressed(r, do))
}

func (p *Page) serveAPI(w http.ResponseWriter, r *http.Request, do func() (*respond.Response, error)) {
	p.opts.Served(KindAPI)
	p.api.Respond(w, r, compressed(r, do))
}
