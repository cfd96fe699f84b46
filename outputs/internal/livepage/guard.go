package livepage

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/respond"
)

// An audience is who may see a value.
type audience uint8

const (
	nobody      audience = iota // arguments, which may contain secrets
	trustedOnly                 // on this host or authenticated
	everyone                    // who can reach the endpoint
)

// includes reports whether a reader belongs to the audience.
func (a audience) includes(trusted bool) bool { return a == everyone || a == trustedOnly && trusted }

// visibility returns who may see the value of a tag or field. Everyone who can reach the
// endpoint sees tags and numbers as metrics, so the page shows them, too. Texts are not
// metrics: it shows only those that are known to contain nothing more.
func visibility(key string, kind metric.Kind, tag bool) audience {
	switch {
	case key == "cmdline":
		return nobody
	case key == "exe" || key == "login_uid" || strings.HasPrefix(key, "parent_") || strings.HasPrefix(key, "cgroup"):
		return trustedOnly
	case tag || kind != metric.KindString || slices.Contains(publicTexts[:], key):
		return everyone
	default:
		return trustedOnly
	}
}

// publicTexts are the fields with texts that everyone may see: names that tags have, too.
var publicTexts = [...]string{
	"expected", "rule", "verdict", "cause", "history", "previous_address", "previous_container", "previous_exposure",
	"previous_process", "previous_unit", "previous_user", "previous_user_unit",
}

// check returns an error if a request may come from a page of another site that misuses
// the browser of someone who can reach the endpoint: by a name that it has pointed at this
// host (DNS rebinding), or by a cross-site request. A link from another site to one of the
// HTML pages works, because that site cannot read them.
func (p *Page) check(r *http.Request) error {
	if !p.knownHost(r.Host) {
		p.opts.Refused(RefusedHost)
		return respond.Errorf(http.StatusForbidden, "the page is not served under the name %.100q: use an IP address, localhost or this host's name, or add the name to page_hosts in [[outputs.prometheus]]", r.Host)
	}
	if isCrossSite(r) {
		p.opts.Refused(RefusedSite)
		return respond.Errorf(http.StatusForbidden, "requests from pages of other sites are not answered")
	}
	return nil
}

// knownHost reports whether a Host header names this host. A page of another site can
// name only hosts of its own domain.
func (p *Page) knownHost(header string) bool {
	host := hostOf(header)
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && (host == "localhost" || host == strings.ToLower(p.opts.Hostname) || p.opts.Hosts.Match(host))
}

// hostOf returns the host of a Host header in lower case, without port, brackets and final
// dot, or "".
func hostOf(header string) string {
	host := header
	if h, port, err := net.SplitHostPort(header); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "" { // RFC 3986 allows an empty one
			return ""
		}
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// isCrossSite reports whether a browser has sent the request for another site. Browsers
// send Sec-Fetch-Site only over TLS and to loopback, and Origin with what a script may
// read.
func isCrossSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		_, host, _ := strings.Cut(origin, "://")
		if !strings.EqualFold(host, r.Host) {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	default:
		return !(isDocument(r.URL.Path) && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document")
	}
}

// isDocument reports whether a path is that of an HTML page.
func isDocument(path string) bool {
	return path == rootPath || path == eventsPath || path == healthPath || strings.HasPrefix(path, listenerPath)
}

// protect sets the headers of every response of the page.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
