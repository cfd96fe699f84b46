package prometheus

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/promname"
	"sockwatch/outputs/internal/respond"
)

// A targetGroup is an element of the list that Prometheus' HTTP service discovery reads.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// discover answers with one target for each listener, that is each point with the tags
// address and port. The query selects by tags; several values of one tag are alternatives
// (?exposure=public&exposure=private). The key address does not select: its value
// replaces wildcard addresses. Listeners of other network namespaces are left out unless
// the query has the key netns.
func discover(r *http.Request, board plugin.Board) (*respond.Response, error) {
	sources, latest := board.Sources(), board.Latest()
	if len(latest) == 0 {
		return nil, errNothingGathered
	}
	if name, ok := missingListeners(sources, latest); ok {
		// After an empty list Prometheus would drop all targets; after an error it keeps them.
		return nil, respond.Errorf(http.StatusServiceUnavailable, "the listeners of %s are not known: its last gather failed, or its first has not ended", name)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, respond.Errorf(http.StatusBadRequest, "%v", err)
	}
	if err := checkKeys(query, sources, latest); err != nil {
		return nil, err
	}
	wildcard := query.Get("address")
	if !query.Has("address") {
		wildcard = requestHost(r)
	}
	if !isTargetHost(wildcard) {
		return nil, respond.Errorf(http.StatusBadRequest, "the address for wildcards is neither an IP address nor a host name")
	}
	query.Del("address")
	groups := []targetGroup{}
	for _, b := range latest {
		for i := range b.Points {
			if g, ok := target(&b.Points[i], query, wildcard); ok {
				groups = append(groups, g)
			}
		}
	}
	body, err := json.Marshal(groups)
	if err != nil {
		return nil, err
	}
	return &respond.Response{Header: map[string]string{"Content-Type": "application/json"}, Body: body}, nil
}

// missingListeners returns the name of a source of listeners that has no batch, because
// its last gather failed or its first one has not ended.
func missingListeners(sources []plugin.SourceState, latest []*metric.Batch) (string, bool) {
	for _, s := range sources {
		published := slices.ContainsFunc(latest, func(b *metric.Batch) bool { return b.Source == s.Name })
		if slices.Contains(s.Tags, "address") && slices.Contains(s.Tags, "port") && (s.Err != nil || !published) {
			return s.Name, true
		}
	}
	return "", false
}

// checkKeys refuses a query key that is not a tag: a misspelled one would select nothing,
// so nothing would be probed. The tags are those that the inputs declare and those that
// the points have, since an input need not declare any.
func checkKeys(query url.Values, sources []plugin.SourceState, latest []*metric.Batch) error {
	known := map[string]bool{"address": true}
	for _, s := range sources {
		for _, tag := range s.Tags {
			known[tag] = true
		}
	}
	for _, b := range latest {
		for i := range b.Points {
			for _, tag := range b.Points[i].Tags {
				known[tag.Key] = true
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if !known[key] {
			return respond.Errorf(http.StatusBadRequest, "unknown tag %q: known are %s", key, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return nil
}

// target returns the target of a point. It returns false if the point is not a listener
// or the query does not select it.
func target(p *metric.Point, query url.Values, wildcard string) (targetGroup, bool) {
	host, ok := targetHost(p.Tag("address"), p.Tag("family"), wildcard)
	port, err := strconv.ParseUint(p.Tag("port"), 10, 16)
	if !ok || err != nil || port == 0 || p.Tag("netns") != "" && !query.Has("netns") {
		return targetGroup{}, false
	}
	for key, values := range query {
		if !slices.Contains(values, p.Tag(key)) {
			return targetGroup{}, false
		}
	}
	labels := map[string]string{"__meta_sockwatch_name": p.Name}
	for _, t := range slices.Backward(p.Tags) { // if two tags become one label, the first wins
		labels["__meta_sockwatch_"+promname.Classic(t.Key, false)] = t.Value
	}
	return targetGroup{[]string{net.JoinHostPort(host, strconv.FormatUint(port, 10))}, labels}, true
}

// targetHost returns the host at which a listener is reached: a wildcard address becomes
// the host wildcard, a link-local address keeps its zone, and every other address loses
// its device. It returns false for a wildcard address that does not accept connections to
// the host wildcard.
func targetHost(address, family, wildcard string) (string, bool) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		plain, device, _ := strings.Cut(address, "%")
		if ip, err = netip.ParseAddr(plain); err != nil || device == "" {
			return "", false
		}
	}
	switch plain := ip.WithZone("").Unmap(); {
	case plain.IsUnspecified():
		return wildcard, wildcard != "" && accepts(plain, family, wildcard)
	case plain.Is6() && plain.IsLinkLocalUnicast():
		return ip.String(), true
	default:
		return plain.String(), true
	}
}

// accepts reports whether a listener on a wildcard address accepts connections to a host.
// For a host name, whose family is not known, it returns true.
func accepts(wildcard netip.Addr, family, host string) bool {
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return true
	case ip.Unmap().Is4():
		return wildcard.Is4() || family != "ipv6" // [::] accepts both families unless it is IPv6 only
	default:
		return wildcard.Is6()
	}
}

// requestHost returns the host of the request's URL, without port and brackets.
func requestHost(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
}

// isTargetHost reports whether a host from a request can be part of a target. An empty
// one is valid: it leaves out the listeners on wildcard addresses.
func isTargetHost(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || isHostname(host)
}
