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

// routes reads and keeps the addresses that one namespace answers on.
type routes struct {
	location *location
	backend  string
	refresh  time.Duration
	keep     bool // a watch may stay open in the namespace

	watch   *watch // nil if changes are not watched
	stale   bool   // something has changed since the last read
	last    *Local
	err     error     // of the last read
	read    time.Time // when they were last read
	rest    time.Time // no read before this time
	refused error     // why only procfs is used from now on
}

// Reading a namespace can take long, and its owner can change it all the time. After a read
// that took longer than cheapRead, nothing is read for restFactor times as long. The
// program's own namespace is exempt if its changes are watched, so it is always up to date.
const (
	cheapRead  = 50 * time.Millisecond
	restFactor = 20
)

// local returns the Local of the namespace. It reads it again if it may have changed.
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

// readNetlink reads by rtnetlink. It is tried even if sockets are listed by procfs, whose
// cost grows with the routing table and which does not show routing rules.
func (r *routes) readNetlink(ctx context.Context) (*Local, error) {
	var conn *netlink.Conn
	accept := false
	err := r.location.enter(func() (err error) {
		if r.watch == nil && r.keep {
			r.watch, _ = openWatch() // before the read, so that no change is missed
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

// maxTable is how much of a routing table in procfs is read. For each page of fib_trie, the
// kernel walks all pages before it.
const maxTable = 8 << 20

// readProcfs reads the tables in /proc/PID/net. They show neither rules nor devices.
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
