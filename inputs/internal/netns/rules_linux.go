package netns

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A rule is one routing rule (ip-rule(8)), reduced to what matters for packets that arrive
// from another host.
type rule struct {
	priority uint32
	action   uint8  // FR_ACT_*
	target   uint32 // of FR_ACT_GOTO: the priority at which to continue
	table    uint32 // of FR_ACT_TO_TBL
	l3mdev   bool   // the table is that of the VRF by which a packet arrived

	inverted bool
	to       netip.Prefix // invalid if the rule is for every destination
	input    string       // name of the device by which a packet arrives; "": any device
	others   bool         // it depends on the sender, the protocol or the port
	never    bool         // it is for packets that a firewall has marked, or that leave the host
	suppress int          // routes with a prefix of at most this length do not count; -1: all count
}

// devices are the network devices of a namespace.
type devices struct {
	links  map[uint32]link
	byName map[string]uint32
}

func (d *devices) add(index uint32, l link) {
	if d.links == nil {
		d.links, d.byName = make(map[uint32]link), make(map[string]uint32)
	}
	d.links[index], d.byName[l.name] = l, index
}

// An arrival is the way in which packets arrive: by any device outside VRFs, by one such
// device, or by the devices of a VRF.
type arrival struct {
	any    bool
	device uint32
	vrf    uint32
}

// A source is a routing table that the rules look up, and which of its routes count.
type source struct {
	table    uint32
	to       netip.Prefix
	suppress int
}

// sources returns the routing tables that are looked up for a packet. The table of an
// unconditional rule does not hide the tables of later rules: all of its routes would have
// to be read to know which destinations it covers.
func sources(rules []rule, d *devices, a arrival) []source {
	var all []source
	from := uint32(0)
	for i := range rules {
		r := &rules[i]
		may, must := r.matches(d, a)
		if r.priority < from || !may {
			continue
		}
		switch r.action {
		case unix.FR_ACT_TO_TBL:
			s := source{table: r.table, suppress: r.suppress}
			if r.l3mdev {
				s.table = d.links[a.vrf].table
			}
			if !r.inverted {
				s.to = r.to
			}
			all = append(all, s)
		case unix.FR_ACT_GOTO:
			if must {
				from = r.target
			}
		case unix.FR_ACT_BLACKHOLE, unix.FR_ACT_UNREACHABLE, unix.FR_ACT_PROHIBIT:
			if must {
				return all
			}
		}
	}
	return all
}

// matches reports whether a rule may match packets of an arrival, and whether it matches
// all of them.
func (r *rule) matches(d *devices, a arrival) (may, must bool) {
	may = !r.never && (!r.l3mdev || a.vrf != 0)
	must = may && !r.to.IsValid() && !r.others
	if r.input != "" {
		comes := r.comesBy(d, a)
		may = may && comes
		must = must && comes && !a.any && a.vrf == 0
	}
	if r.inverted {
		return !must, !may
	}
	return may, must
}

// comesBy reports whether packets of an arrival may have come by the rule's device.
func (r *rule) comesBy(d *devices, a arrival) bool {
	index, ok := d.byName[r.input]
	l := d.links[index]
	switch {
	case !ok || l.loopback: // packets on loopback come from the host itself
		return false
	case a.vrf != 0:
		return index == a.vrf || l.master == a.vrf
	case a.any:
		return !l.vrf && !d.links[l.master].vrf
	default:
		return index == a.device
	}
}

// defaultRules returns the kernel's own IPv4 rules. A kernel without routing rules behaves
// in the same way.
func defaultRules() []rule {
	lookUp := func(priority, table uint32) rule {
		return rule{priority: priority, action: unix.FR_ACT_TO_TBL, table: table, suppress: -1}
	}
	return []rule{lookUp(0, unix.RT_TABLE_LOCAL), lookUp(32766, unix.RT_TABLE_MAIN), lookUp(32767, unix.RT_TABLE_DEFAULT)}
}
