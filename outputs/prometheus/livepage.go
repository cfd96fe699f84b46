package prometheus

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/livepage"
)

// newPage returns the live page of a board.
func (e *endpoint) newPage(board plugin.Board) *livepage.Page {
	return livepage.New(livepage.Options{
		Hostname: e.env.Hostname,
		Log:      e.env.Log,
		Hosts:    e.pageHosts(),
		Trusted:  trusted,
		Links: []livepage.Link{
			{Text: "Metrics", Path: e.opts.Path}, {Text: "Discovery", Path: sdPath},
		},
		Served:  func(k livepage.Kind) { e.own.pageRequests.WithLabelValues(string(k)).Inc() },
		Refused: func(r livepage.Reason) { e.own.pageRefused.WithLabelValues(string(r)).Inc() },
	}, board)
}

// pageHosts returns the names of this host: those of page_hosts, the names in listen, and
// the name that the kernel has, since the one in the configuration may be another. Of a name
// with a domain, its first label is one, too: no other site has a name without a domain.
func (e *endpoint) pageHosts() plugin.Globs {
	var names []string
	for _, pattern := range e.opts.PageHosts {
		names = append(names, strings.ToLower(pattern))
	}
	add := func(name string) {
		if name != "" {
			names = append(names, plugin.EscapeGlob(strings.ToLower(name)))
		}
	}
	for _, s := range e.opts.Listen {
		if a, err := parseAddress(s); err == nil && a.network == "tcp" {
			host, _, _ := net.SplitHostPort(a.address)
			add(host)
		}
	}
	kernel, _ := os.Hostname() // without it, the other names are left
	add(kernel)
	for _, name := range []string{kernel, e.env.Hostname} {
		label, _, _ := strings.Cut(name, ".")
		add(label)
	}
	hosts, _ := plugin.CompileGlobs(names) // Validate has compiled them
	return hosts
}

// trusted reports whether a request comes from this host or has authenticated, with a
// password or a certificate.
func trusted(r *http.Request) bool {
	return hasPassword(r) || r.TLS != nil && len(r.TLS.VerifiedChains) > 0 || isLocal(r)
}

// isLocal reports whether a request comes from this host: over a unix socket or from a
// loopback address, and not through a proxy. nginx, with its defaults, adds no header, but
// speaks HTTP/1.0.
func isLocal(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) {
		return false
	}
	for name := range r.Header {
		if slices.ContainsFunc(proxyHeaders[:], func(part string) bool { return strings.Contains(name, part) }) {
			return false
		}
	}
	if _, ok := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); ok {
		return true
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

// proxyHeaders are parts of the names of headers that only proxies send, such as
// X-Forwarded-For, X-Cluster-Client-Ip and Cf-Connecting-Ip.
var proxyHeaders = [...]string{"Forwarded", "Via", "Real-Ip", "Client-Ip", "Clientip", "Connecting-Ip", "X-Envoy-"}
