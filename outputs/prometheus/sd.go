package prometheus

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A targetGroup is an element of what Prometheus' HTTP service discovery reads.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// discover answers with one target for each listener, a point with the tags
// address and port. The query selects by tags (?exposure=public&exposure=private,
// any of the values), but for address: that is what a wildcard becomes.
func discover(r *http.Request, board plugin.Board) (*answer, error) {
	latest := board.Latest()
	if len(latest) == 0 {
		return nil, errNothingGathered
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err.Error()}
	}
	wildcard := query.Get("address")
	if !query.Has("address") {
		wildcard = requestHost(r)
	}
	if !isTargetHost(wildcard) {
		return nil, &httpError{http.StatusBadRequest, "the address for wildcards is neither an IP address nor a host name"}
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
	return &answer{map[string]string{"Content-Type": "application/json"}, body}, nil
}

// target returns the target of a point; false where it is no listener or the query
// does not want it.
func target(p *metric.Point, query url.Values, wildcard string) (targetGroup, bool) {
	host, ok := targetHost(p.Tag("address"), wildcard)
	port, err := strconv.ParseUint(p.Tag("port"), 10, 16)
	if !ok || err != nil || port == 0 {
		return targetGroup{}, false
	}
	for key, values := range query {
		if !slices.Contains(values, p.Tag(key)) {
			return targetGroup{}, false
		}
	}
	labels := map[string]string{"__meta_sockwatch_name": p.Name}
	for _, t := range slices.Backward(p.Tags) { // of two tags of one label the first stands
		labels["__meta_sockwatch_"+legacy(t.Key, false)] = t.Value
	}
	return targetGroup{[]string{net.JoinHostPort(host, strconv.FormatUint(port, 10))}, labels}, true
}

// targetHost returns where a listener bound to the address is reached: a wildcard
// through the given host, a link-local address with its zone, every other without
// the device that it may be bound to.
func targetHost(address, wildcard string) (string, bool) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		plain, device, _ := strings.Cut(address, "%")
		if ip, err = netip.ParseAddr(plain); err != nil || device == "" {
			return "", false
		}
	}
	switch plain := ip.WithZone("").Unmap(); {
	case plain.IsUnspecified():
		return wildcard, wildcard != ""
	case plain.Is6() && plain.IsLinkLocalUnicast():
		return ip.String(), true
	default:
		return plain.String(), true
	}
}

// requestHost returns the host by which the client has called this endpoint,
// without the port and the brackets.
func requestHost(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
}

// isTargetHost tells whether a host from a request can stand in a target. No host
// at all leaves the wildcards out.
func isTargetHost(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || isHostname(host)
}
