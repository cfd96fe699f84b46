package netns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var errInterrupted = errors.New("interrupted by changes at every attempt")

// dialRoutes opens a socket for the devices, rules and routes of the calling thread's
// namespace.
func dialRoutes() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{MessageBufferSize: 32 << 10})
	if err != nil {
		return nil, fmt.Errorf("open a rtnetlink socket: %w", err)
	}
	// Without strict checking (before 4.20), the kernel does not filter routes, but
	// parseRoute does.
	_ = c.SetOption(netlink.GetStrictCheck, true)
	return c, nil
}

// readRoutes reads the addresses that a namespace answers on. accept is the namespace's
// net.ipv4.tcp_l3mdev_accept.
func readRoutes(ctx context.Context, c *netlink.Conn, accept bool) (*Local, error) {
	const attempts = 8
	for range attempts {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		b := builder{accept: accept}
		intact, err := b.read(ctx, c)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
		if intact {
			return b.local(), nil
		}
	}
	return nil, fmt.Errorf("read routes: %w", errInterrupted)
}

// read reads everything. intact is false if changes made an answer inconsistent.
func (b *builder) read(ctx context.Context, c *netlink.Conn) (intact bool, err error) {
	// A kernel that does not answer must not block the program for ever.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(30 * time.Second)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()

	intact, err = dump(c, linksRequest(), func(data []byte) error {
		index, l, err := parseLink(data)
		b.devices.add(index, l)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("list devices: %w", err)
	}
	families := [...]uint8{ipv4: unix.AF_INET, ipv6: unix.AF_INET6}
	for family, af := range families {
		one, err := dump(c, rulesRequest(af), func(data []byte) error {
			r, err := parseRule(data)
			b.rules[family] = append(b.rules[family], r)
			if len(b.rules[family]) > maxRuleWalks {
				return errTooManyRules
			}
			return err
		})
		if isUnknownFamily(err) {
			b.rules[family], one = defaultRules(), true
		} else if err != nil {
			return false, fmt.Errorf("list routing rules: %w", err)
		}
		intact = intact && one
		slices.SortStableFunc(b.rules[family], func(x, y rule) int { return cmp.Compare(x.priority, y.priority) })
	}
	if err := b.prepare(); err != nil {
		return false, err
	}
	for _, af := range families {
		one, err := dump(c, routesRequest(af), func(data []byte) error {
			r, ok, err := parseRoute(data)
			if ok {
				err = b.add(r)
			}
			return err
		})
		if err != nil && !isUnknownFamily(err) {
			return false, fmt.Errorf("list local routes: %w", err)
		}
		intact = intact && (one || err != nil)
	}
	return intact, nil
}

// isUnknownFamily reports whether the kernel was built without an address family, or
// without routing rules for it.
func isUnknownFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// dump calls visit for every message of an answer. intact is false if the kernel reports
// that changes made the answer inconsistent. The data is valid only during the call.
func dump(c *netlink.Conn, request netlink.Message, visit func(data []byte) error) (intact bool, err error) {
	sent, err := c.Send(request)
	if err != nil {
		return false, err
	}
	intact = true
	for m, err := range c.ReceiveIter() {
		if err != nil {
			return false, err
		}
		if m.Header.Sequence != sent.Header.Sequence {
			return false, fmt.Errorf("answer to request %d, expected %d", m.Header.Sequence, sent.Header.Sequence)
		}
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			intact = false
		}
		if err := visit(m.Data); err != nil {
			return false, err
		}
	}
	return intact, nil
}

// acceptsVRFs reads net.ipv4.tcp_l3mdev_accept of the calling thread's namespace.
func acceptsVRFs() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_l3mdev_accept")
	return err == nil && len(text) > 0 && text[0] != '0' // a kernel without VRFs has no such file
}
