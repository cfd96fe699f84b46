package tcplisten

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits of the lookups of names.
const (
	lookupTimeout  = 10 * time.Second // of a round over all that are due
	lookupPatience = 50 * time.Millisecond
	lookupAgain    = 10 * time.Minute
)

// names looks the names of addresses up in the background, so that no gather
// waits for a name server: until there is a name, the address stands for it.
type names struct {
	lookup func(ctx context.Context, address string) ([]string, error)
	stop   context.CancelFunc // of the round under way
	done   chan struct{}      // closed when that has ended; nil before the first

	mu    sync.Mutex
	known map[netip.Addr]string
	due   time.Time // when known is to be looked up again
	news  bool
}

func newNames() *names {
	return &names{lookup: net.DefaultResolver.LookupAddr, known: make(map[netip.Addr]string)}
}

// of returns the name of an address, or the address.
func (n *names) of(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name := n.known[a]; name != "" {
		return name
	}
	return a.String()
}

// want begins to look up those of the addresses that are not known, and all when
// their time has come. It waits a moment for names that are at hand, as those of
// /etc/hosts are. It tells whether a name has changed since it was called last.
func (n *names) want(addresses map[netip.Addr]bool, now time.Time) (news bool) {
	if n.idle() {
		if missing := n.missing(addresses, now); len(missing) > 0 {
			ctx, stop := context.WithTimeout(context.Background(), lookupTimeout)
			n.stop, n.done = stop, make(chan struct{})
			go n.round(ctx, missing, n.done)
			select {
			case <-n.done:
			case <-time.After(lookupPatience):
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	news, n.news = n.news, false
	return news
}

func (n *names) idle() bool {
	if n.done == nil {
		return true
	}
	select {
	case <-n.done:
		n.stop()
		return true
	default:
		return false
	}
}

// missing returns the addresses to look up, and forgets those that are not wanted
// any more.
func (n *names) missing(addresses map[netip.Addr]bool, now time.Time) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.known, func(a netip.Addr, _ string) bool { return !addresses[a] })
	all := !now.Before(n.due)
	if all {
		n.due = now.Add(lookupAgain)
	}
	var missing []netip.Addr
	for a := range addresses {
		if _, ok := n.known[a]; !ok || all {
			missing = append(missing, a)
		}
	}
	slices.SortFunc(missing, netip.Addr.Compare)
	return missing
}

// round looks addresses up, a few at a time.
func (n *names) round(ctx context.Context, addresses []netip.Addr, done chan<- struct{}) {
	defer close(done)
	var workers sync.WaitGroup
	next := make(chan netip.Addr)
	for range min(8, len(addresses)) {
		workers.Go(func() {
			for a := range next {
				found, err := n.lookup(ctx, a.String())
				n.learn(a, found, err)
			}
		})
	}
	for _, a := range addresses {
		next <- a
	}
	close(next)
	workers.Wait()
}

// learn keeps the first name of an address, as the ancestor does. Where there is
// none the address stays; what was known stays true through an outage.
func (n *names) learn(a netip.Addr, found []string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, ok := n.known[a]
	name := before
	if err == nil && len(found) > 0 {
		name = found[0]
	}
	n.known[a] = name
	n.news = n.news || !ok && name != "" || name != before
}

// close ends the round under way and waits for it.
func (n *names) close() {
	if n.done != nil {
		n.stop()
		<-n.done
	}
}
