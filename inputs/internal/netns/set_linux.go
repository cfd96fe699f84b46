// Package netns finds the network namespaces of a host, lists the sockets of each, and
// reports which of its addresses can be reached. It returns errors and never logs.
package netns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/sockdiag"
)

// The values of Options.Backend.
const (
	Auto    = "auto"    // netlink, and procfs if the kernel refuses netlink
	Netlink = "netlink" // only netlink
	Procfs  = "procfs"  // /proc/PID/net
)

// Options are the options of a Set.
type Options struct {
	// Backend says how sockets are listed: Auto, Netlink or Procfs.
	Backend string
	// Others includes all other network namespaces of the host.
	Others bool
	// Refresh is how often everything is read again: threads, open files and mounts that
	// hold namespaces, and routes even if no change was announced.
	Refresh time.Duration
}

// A Set is the network namespaces of a host. It must be used by one goroutine.
type Set struct {
	finder *finder // nil without Options.Others
	shared *shared
	root   *Namespace
	all    []*Namespace
	forced time.Time // when a whole lap was last done at once
}

// shared is what the namespaces of a set share.
type shared struct {
	host    host.Host
	options Options
	free    int                    // for how many more namespaces sockets may be kept open
	find    func(p *location) bool // finds another process in a namespace; nil without Options.Others
	buf     []byte                 // for sockdiag
}

// Open finds the host's namespace. Find finds the others.
func Open(h host.Host, o Options) (*Set, error) {
	s := &Set{shared: &shared{host: h, options: o, free: keepLimit(), buf: make([]byte, sockdiag.BufferSize)}}
	own := &location{host: h, own: true}
	root := own
	if !h.OwnNetNS {
		root = &location{host: h, process: processRef(1)}
	}
	// Without /proc/thread-self it has no numbers, but it can still be listed.
	own.number, _ = numberOf("/proc/thread-self/ns/net")
	own.table, _ = ownTable()
	if o.Others {
		f, err := openFinder(h, own, root, o.Refresh)
		if err != nil {
			return nil, fmt.Errorf("network namespaces: %w", err)
		}
		s.finder, s.shared.find = f, f.findAgain
	}
	s.root = newNamespace(root, s.shared)
	s.root.root = true
	s.all = []*Namespace{s.root}
	return s, nil
}

// keepLimit returns for how many other namespaces sockets may be kept open. Each needs
// two, and all together may use half of the file limit that the rest of the program does
// not need.
func keepLimit() int {
	const others, most = 256, 4096
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < others {
		return 0
	}
	return int(min((limit.Cur-others)/4, most))
}

func ownTable() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/thread-self/net/tcp", &st)
	return st.Ino, err
}

// Find updates the set. It must be called before every gather. It examines new processes
// each time, and releases a namespace whose last process and mount are gone. If it could
// not look everywhere, partial says why, and no known namespace is removed. It returns an
// error only if it cannot identify the host's namespace.
func (s *Set) Find(ctx context.Context, now time.Time) (partial string, err error) {
	if err := s.findRoot(); err != nil {
		return "", err
	}
	if s.finder == nil {
		return "", nil
	}
	locations, failed := s.finder.pass(ctx, now)
	if failed == nil && s.misses(locations) && now.Sub(s.forced) >= s.shared.options.Refresh/8 {
		s.forced = now
		locations, failed = s.finder.searchAll(ctx, now)
	}
	if s.adopt(locations, failed != nil); failed == nil {
		s.finder.known.removeOthers(locations)
	}
	if failed != nil {
		return "network namespaces: " + failed.Error(), nil
	}
	return "", nil
}

// findRoot updates the numbers of the host's namespace, unless it is the program's own,
// whose numbers do not change.
func (s *Set) findRoot() error {
	p := s.root.location
	if p.own {
		return nil
	}
	number, err := p.process.number(p.host)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace of the host: process 1 is not visible in %s, perhaps because of hidepid: %w", p.host.Proc, err)
	}
	if err != nil && !isRefused(err) {
		return fmt.Errorf("network namespace of the host: %w", err)
	}
	table, err := tableNumber(p.host, p.process.pid)
	if err != nil {
		return fmt.Errorf("network namespace of the host: %w", err)
	}
	if p.number != number || p.table != table {
		if s.finder != nil {
			s.finder.known.remove(p)
		}
		p.number, p.table = number, table
		s.root.release()
	}
	if s.finder != nil {
		s.finder.known.add(p)
	}
	return nil
}

// misses reports whether a namespace that had sockets is not among the locations found. A
// thread or an open file may still hold it, which only a lap finds.
func (s *Set) misses(locations []*location) bool {
	held := setOf(locations)
	return slices.ContainsFunc(s.all, func(n *Namespace) bool { return n.sockets.found > 0 && !held[n.location] })
}

// adopt updates the set from the locations found. If partial is set, namespaces that are
// missing stay.
func (s *Set) adopt(locations []*location, partial bool) {
	held := setOf(locations)
	known := make(map[*location]bool, len(s.all))
	kept := s.all[:0]
	for _, n := range s.all {
		if n != s.root && (n.gone || !partial && !held[n.location]) {
			n.gone = true
			n.release()
			continue
		}
		known[n.location] = true
		kept = append(kept, n)
	}
	for _, p := range locations {
		if !known[p] {
			kept = append(kept, newNamespace(p, s.shared))
		}
	}
	clear(s.all[min(len(kept), len(s.all)):])
	s.all = kept
	slices.SortFunc(s.all, func(a, b *Namespace) int {
		if a == s.root {
			return -1
		}
		if b == s.root {
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.location.number, b.location.number), cmp.Compare(a.location.table, b.location.table))
	})
}

func setOf(locations []*location) map[*location]bool {
	set := make(map[*location]bool, len(locations))
	for _, p := range locations {
		set[p] = true
	}
	return set
}

// All returns the namespaces that the last Find has found: the host's first, then the
// others by name. A namespace keeps the same pointer for as long as it exists. The slice is
// valid until the next call of Find.
func (s *Set) All() []*Namespace { return s.all }

// Close releases everything.
func (s *Set) Close() error {
	var errs []error
	for _, n := range s.all {
		n.release()
	}
	if s.finder != nil {
		errs = append(errs, s.finder.close())
	}
	return errors.Join(errs...)
}
