package influxdb

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
)

// checkAddress finds typing errors in the host and port of a URL that would make every
// request fail. A name whose last label is a number is not a domain name.
func checkAddress(u *url.URL) error {
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return plugin.Errorf("the port of %q is not a number from 1 to 65535", u.String())
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
