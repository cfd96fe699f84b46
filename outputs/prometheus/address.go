package prometheus

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
)

// An address is one parsed string of the option listen.
type address struct {
	network string // "tcp", "unix" or "systemd"
	address string // as net.Listen takes it; for systemd the name of the socket, or ""
}

// parseAddress parses one address without looking anything up.
func parseAddress(s string) (address, error) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		if strings.HasPrefix(p, "///") { // a URL with an empty host
			p = p[len("//"):]
		}
		switch {
		case !filepath.IsAbs(p):
			return address{}, plugin.Errorf(`%q: the path of a unix socket must begin with "/"`, s)
		case len(p) > maxUnixPath:
			return address{}, plugin.Errorf("%q: the path of a unix socket must not be longer than %d bytes", s, maxUnixPath)
		case strings.ContainsRune(p, 0) || filepath.Clean(p) != p:
			return address{}, plugin.Errorf("%q: the path of a unix socket is not in its shortest form", s)
		}
		return address{"unix", p}, nil
	}
	if s == "systemd" {
		return address{"systemd", ""}, nil
	}
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		if name == "" || strings.ContainsAny(name, ":\x00\n") {
			return address{}, plugin.Errorf("%q: the name of a socket must follow systemd: (FileDescriptorName=)", s)
		}
		return address{"systemd", name}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, plugin.Errorf(`%q is not an address: write one such as ":8088", "127.0.0.1:8088", "[::1]:8088" or "unix:/run/sockwatch.sock"`, s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return address{}, plugin.Errorf("%q: port %q is not a number from 0 to 65535", s, port)
	}
	if _, err := netip.ParseAddr(host); err != nil && (!isHostname(host) || endsInNumber(host)) {
		return address{}, plugin.Errorf("%q: %q is neither an IP address nor a host name", s, host)
	}
	return address{"tcp", s}, nil
}

// maxUnixPath is the length of sockaddr_un.sun_path without its final zero, see
// unix(7).
const maxUnixPath = 107

// isHostname reports whether host is "" (every address) or looks like a name.
func isHostname(host string) bool {
	return len(host) <= 253 && !strings.ContainsFunc(host, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}

// endsInNumber reports whether the last label of a name is a number. No such domain
// exists, so the name is a mistyped IP address.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	_, err := strconv.ParseUint(host[strings.LastIndexByte(host, '.')+1:], 10, 64)
	return err == nil
}

// identity returns the address in a form that is equal for two addresses that cannot both
// be bound, as far as their text shows. It returns "" for port 0, which is a new port
// each time.
func (a address) identity() string {
	switch a.network {
	case "unix":
		return "unix:" + a.address
	case "systemd":
		return strings.TrimSuffix("systemd:"+a.address, ":")
	}
	host, port, _ := net.SplitHostPort(a.address)
	if port == "0" {
		return ""
	}
	host = strings.ToLower(host)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
		if ip.Unmap().IsUnspecified() {
			host = ""
		}
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return net.JoinHostPort(host, port)
}

// isLoopback reports whether only this host can reach a bound address.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}
