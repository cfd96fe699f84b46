package netns

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// A builder builds a Local from the answers of rtnetlink.
type builder struct {
	devices
	rules       [2][]rule // IPv4, IPv6; in the order of their priority
	parts       [2]map[uint32][]source
	tables      [2]map[source]*addresses // the addresses of local routes
	foreign     map[source]*addresses    // IPv4: the addresses from which only transparent sockets answer
	added       int
	customRules bool // IPv4: the routing rules differ from the kernel's own
	accept      bool // net.ipv4.tcp_l3mdev_accept
}

// Limits on the cost of one namespace: memory (about 12 MB), and time if rules depend on
// devices.
const (
	maxLocalRoutes = 1 << 18
	maxRuleWalks   = 1 << 24
)

var (
	errTooManyRoutes = fmt.Errorf("more than %d local routes", maxLocalRoutes)
	errTooManyRules  = errors.New("too many routing rules and devices")
)

const (
	ipv4 = 0
	ipv6 = 1
)

// prepare must be called after all links and rules are known and before add.
func (b *builder) prepare() error {
	arrivals := b.arrivals()
	if len(arrivals)*(len(b.rules[ipv4])+len(b.rules[ipv6])) > maxRuleWalks {
		return errTooManyRules
	}
	b.foreign = make(map[source]*addresses)
	b.customRules = !slices.Equal(b.rules[ipv4], defaultRules())
	for family := range b.rules {
		b.tables[family] = make(map[source]*addresses)
		b.parts[family] = make(map[uint32][]source)
		for _, a := range arrivals {
			for _, s := range sources(b.rules[family], &b.devices, a) {
				if b.tables[family][s] == nil {
					b.tables[family][s], b.foreign[s] = new(addresses), new(addresses)
					b.parts[family][s.table] = append(b.parts[family][s.table], s)
				}
			}
		}
	}
	return nil
}

// arrivals returns the arrivals that may differ: outside VRFs, by each device that a
// rule names, and by each VRF.
func (b *builder) arrivals() []arrival {
	all := []arrival{{any: true}, {}}
	named := make(map[uint32]bool)
	for _, rules := range b.rules {
		for i := range rules {
			if index, ok := b.byName[rules[i].input]; ok {
				named[index] = true
			}
		}
	}
	for _, index := range slices.Sorted(maps.Keys(b.links)) {
		switch l := b.links[index]; {
		case l.vrf:
			all = append(all, arrival{vrf: index})
		case named[index] && !b.links[l.master].vrf:
			all = append(all, arrival{device: index})
		}
	}
	return all
}

// add adds a local route.
func (b *builder) add(r route) error {
	family := ipv6
	if r.prefix.Addr().Is4() {
		family = ipv4
	}
	tables := b.tables[family]
	if family == ipv4 && !b.answersFrom(r) {
		tables = b.foreign
	}
	for _, s := range b.parts[family][r.table] {
		p := r.prefix
		if s.to.IsValid() {
			if !p.Overlaps(s.to) {
				continue
			}
			if s.to.Bits() > p.Bits() {
				p = s.to
			}
		}
		if r.prefix.Bits() <= s.suppress {
			continue
		}
		if b.added++; b.added > maxLocalRoutes {
			return errTooManyRoutes
		}
		tables[s].add(p, r.device)
		if master := b.links[r.device].master; b.links[master].vrf {
			tables[s].add(p, master)
		}
	}
	return nil
}

// answersFrom reports whether the kernel lets ordinary sockets answer from the addresses of
// a local IPv4 route. The kernel accepts packets by routes in any table, but it sends
// packets only from addresses of devices and of the table local (__ip_dev_find in
// net/ipv4/devinet.c). That table is merged with main as long as there are only the
// kernel's own rules (fib_trie_unmerge in net/ipv4/fib_trie.c).
func (b *builder) answersFrom(r route) bool {
	return r.table == unix.RT_TABLE_LOCAL || r.kernel || r.table == unix.RT_TABLE_MAIN && !b.customRules
}

// local returns the Local of everything that was added.
func (b *builder) local() *Local {
	for _, tables := range b.tables {
		for _, a := range tables {
			a.seal()
		}
	}
	for _, a := range b.foreign {
		a.seal()
	}
	l := &Local{
		links:   b.links,
		unbound: b.view(arrival{any: true}),
		device:  b.view(arrival{}),
		devices: make(map[uint32]view),
	}
	for _, a := range b.arrivals() {
		switch {
		case a.vrf != 0:
			l.devices[a.vrf] = b.view(a)
			if b.accept {
				l.unbound.add(b.view(a))
			}
		case a.device != 0:
			l.devices[a.device] = b.view(a)
		}
	}
	return l
}

func (b *builder) view(a arrival) view {
	var v view
	for _, s := range sources(b.rules[ipv4], &b.devices, a) {
		v.v4, v.foreign = include(v.v4, b.tables[ipv4][s]), include(v.foreign, b.foreign[s])
	}
	for _, s := range sources(b.rules[ipv6], &b.devices, a) {
		v.v6 = include(v.v6, b.tables[ipv6][s])
	}
	return v
}

func include(all []*addresses, a *addresses) []*addresses {
	if slices.Contains(all, a) {
		return all
	}
	return append(all, a)
}
