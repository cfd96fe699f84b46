package push

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"sockwatch/agent/plugin"
)

// ValidateURLs returns the errors of an option with at least one URL, joined.
func ValidateURLs(option string, values []string, allowQuery bool) error {
	if len(values) == 0 {
		return plugin.Invalid(option, "must name a server")
	}
	var errs []error
	for _, v := range values {
		errs = append(errs, ValidateURL(option, v, allowQuery))
	}
	return errors.Join(errs...)
}

// ValidateURL returns the error of a URL in an option. A query is an error unless
// allowQuery is set.
func ValidateURL(option, value string, allowQuery bool) error {
	u, err := parseURL(value, allowQuery)
	if err == nil {
		err = checkAddress(u)
	}
	if err != nil {
		return plugin.Invalid(option, "%w", err)
	}
	return nil
}

// parseURL parses the URL of a server. Its errors show no part that may be a password or a
// token. Those of net/url would show the whole URL.
func parseURL(s string, allowQuery bool) (*url.URL, error) {
	shown := s
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		shown = s[:i]
	}
	scheme, rest, hasScheme := strings.Cut(shown, "://")
	host, _, _ := strings.Cut(rest, "/")
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"):
		return nil, errors.New(`a URL contains "@", as in user:password@host: set username and password instead`)
	case strings.Contains(s, "#") && allowQuery:
		return nil, plugin.Errorf(`%q is followed by "#", which is not allowed`, shown)
	case shown != s && !allowQuery:
		return nil, plugin.Errorf(`%q is followed by "?" or "#", which is not allowed: set the options instead`, shown)
	case strings.ContainsFunc(shown, unicode.IsSpace):
		return nil, plugin.Errorf("%q contains a blank", shown)
	case !hasScheme || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
		return nil, plugin.Errorf("%q does not begin with http:// or https://", shown)
	case err != nil && strings.Count(host, ":") > 1 && !strings.Contains(host, "["):
		return nil, plugin.Errorf("%q is not a URL: write an IPv6 address in brackets", shown)
	case err != nil:
		return nil, plugin.Errorf("%q is not a URL", shown)
	case u.Hostname() == "":
		return nil, plugin.Errorf("%q has no host", shown)
	}
	return u, nil
}

// checkAddress finds typing errors in the host and port of a URL that would make every
// request fail. A name whose last label is a number is not a domain name.
func checkAddress(u *url.URL) error {
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return plugin.Errorf("the port of %q is not a number from 1 to 65535", u.Scheme+"://"+u.Host)
		}
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if _, err := strconv.ParseUint(host[strings.LastIndexByte(host, '.')+1:], 10, 64); err == nil {
		return plugin.Errorf("the host %q is not an IP address", host)
	}
	return nil
}

// proxySchemes are those that net/http supports.
var proxySchemes = []string{"http", "https", "socks5", "socks5h"}

// parseProxyURL parses the URL of a proxy, which may have a user and a password. Its errors
// show nothing of it.
func parseProxyURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || !slices.Contains(proxySchemes, u.Scheme) || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New(`is not the URL of a proxy: write one such as "http://proxy.example.org:3128" or "socks5://127.0.0.1:1080"`)
	}
	if checkAddress(u) != nil {
		return nil, errors.New("the host or port is not valid")
	}
	return u, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)

// isHost reports whether a certificate can be valid for the name.
func isHost(name string) bool {
	_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	return err == nil || hostName.MatchString(name)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
