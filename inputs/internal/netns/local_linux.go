package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
)

// routes keeps what one namespace answers to.
type routes struct {
	location *location
	backend  string
	refresh  time.Duration
	keep     bool // a socket may stay open, which announces changes

	watch   *watch // nil if changes are not announced
	stale   bool   // one has been announced since the last read
	last    *Local
	err     error // of the last read
	read    time.Time
	rest    time.Time // before it nothing is read again
	refused error     // why they are read from procfs for good
}

// Reading a namespace may take long, and whoever owns it may change it all the time. A
// read that takes longer than cheapRead is followed by a rest: it costs at most one
// part in restFactor of the time. Only the program's own namespace is never late, if its
// changes are announced.
const (
	cheapRead  = 50 * time.Millisecond
	restFactor = 20
)

// local returns what is known, and reads it again if it may have changed.
func (r *routes) local(ctx context.Context, now time.Time) (*Local, error) {
	if r.watch != nil && r.watch.changed() {
		r.stale = true
	}
	if now.Before(r.rest) || r.watch != nil && !r.stale && r.err == nil && now.Sub(r.read) < r.refresh {
		return r.last, r.err
	}
	l, err := r.readNow(ctx)
	if took := time.Since(now); took > cheapRead && (!r.location.own || r.watch == nil) {
		r.rest = now.Add(restFactor * took)
	}
	r.err = err
	if err != nil {
		return r.last, err
	}
	r.stale, r.read = false, now
	if !l.equal(r.last) {
		r.last = l
	}
	return r.last, nil
}

func (r *routes) isOpen() bool { return r.watch != nil }

func (r *routes) close() {
	if r.watch != nil {
		r.watch.close()
		r.watch = nil
	}
}

func (r *routes) readNow(ctx context.Context) (*Local, error) {
	if r.refused == nil {
		l, err := r.readNetlink(ctx)
		if err == nil || r.backend == Netlink || !isUnanswered(err) {
			return l, err
		}
		r.refused = err
	}
	l, err := r.readProcfs(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w (rtnetlink: %w)", err, r.refused)
	}
	return l, nil
}

// readNetlink reads by rtnetlink, also if sockets are listed by procfs: there the cost
// follows the routing table, and routing rules are not shown.
func (r *routes) readNetlink(ctx context.Context) (*Local, error) {
	var conn *netlink.Conn
	accept := false
	err := r.location.enter(func() (err error) {
		if r.watch == nil && r.keep {
			r.watch, _ = openWatch() // before it is read: no change is missed
		}
		accept = acceptsVRFs()
		conn, err = dialRoutes()
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return readRoutes(ctx, conn, accept)
}

// maxTable is how much is read of a routing table: for each page of fib_trie the
// kernel walks all that come before it.
const maxTable = 8 << 20

// readProcfs reads the tables of /proc/PID/net. They show neither rules nor devices.
func (r *routes) readProcfs(ctx context.Context) (*Local, error) {
	v4, v6 := new(addresses), new(addresses)
	var trie fibTrie
	for _, table := range []struct {
		name  string
		parse func([]byte) (netip.Prefix, bool, error)
		local *addresses
	}{
		{name: "fib_trie", parse: trie.parse, local: v4},
		{name: "ipv6_route", parse: parseIPv6Route, local: v6},
	} {
		file, err := r.location.openTable(table.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without that family
		}
		if err != nil {
			return nil, err
		}
		err = lineReader{file: file, piece: 4096, most: maxTable}.read(ctx, func(line []byte) (bool, error) {
			p, ok, err := table.parse(line)
			if ok {
				table.local.add(p, 0)
			}
			return true, err
		})
		file.Close()
		if err != nil {
			return nil, err
		}
		table.local.seal()
	}
	v := view{v4: []*addresses{v4}, v6: []*addresses{v6}}
	return &Local{unbound: v, device: v}, nil
}
