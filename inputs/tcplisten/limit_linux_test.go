package tcplisten

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
)

func TestDivideCutsTheLargestShare(t *testing.T) {
	tests := []struct {
		n           int
		wants, want []int
	}{
		{n: 10, wants: []int{2, 3}, want: []int{2, 3}},
		{n: 10, wants: []int{2, 30}, want: []int{2, 8}},
		{n: 10, wants: []int{30, 2, 30}, want: []int{4, 2, 4}},
		{n: 11, wants: []int{30, 2, 30}, want: []int{5, 2, 4}},
		{n: 9, wants: []int{1, 3, 50, 300}, want: []int{1, 3, 3, 2}},
		{n: 3, wants: []int{1, 3, 50, 300}, want: []int{1, 1, 1, 0}},
		{n: 1, wants: []int{300, 50, 3, 1}, want: []int{0, 0, 0, 1}},
		{n: 0, wants: []int{5, 1}, want: []int{0, 0}},
		{n: 5, wants: nil, want: []int{}},
	}
	for _, tt := range tests {
		var shares []*share
		for _, n := range tt.wants {
			shares = append(shares, &share{groups: make([]*group, n)})
		}
		got := divide(tt.n, shares, func(s *share) int { return len(s.groups) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%d among %v: %v, want %v", tt.n, tt.wants, got, tt.want)
		}
	}
}

// groupsOf returns groups of one listener each, all of the same user. Those with the highest
// ports were seen first.
func groupsOf(uid uint32, port, n, holders int) (groups []*group) {
	ns := &table{ns: new(netns.Namespace)}
	for i := range n {
		l := &listener{table: ns, socket: inet.Socket{Addr: netip.MustParseAddr("127.0.0.1"), Port: uint16(port + i), UID: uid}}
		for pid := range holders {
			l.owner.Holders = append(l.owner.Holders, owner.Holder{Process: &owner.Process{PID: pid + 2}})
		}
		l.tags = metric.NewTags("port", strconv.Itoa(port+i), "user", fmt.Sprint(uid))
		l.key = seriesKey(l.tags)
		groups = append(groups, &group{tags: l.tags, members: []*listener{l}, record: record{firstSeen: int64(1000 - i)}})
	}
	return groups
}

// people returns the users of the tests: 0 is root, ids from 100000 on are delegated to ann,
// and other ids below 1000 have no name.
func people(uid uint32) string {
	switch {
	case uid == 0:
		return "root"
	case uid == 33:
		return "www-data"
	case uid >= 100000:
		return "ann"
	default:
		return ""
	}
}

func TestLimitSparesUsersWithFewListeners(t *testing.T) {
	tests := []struct {
		name     string
		groups   [][]*group
		limit    int
		exporter bool
		want     []string // points by user, then overflow points
	}{
		{
			name:   "all fit",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(33, 80, 2, 1)}, limit: 5,
			want: []string{"0: 3", "33: 2"},
		},
		{
			name:   "one has too many",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(33, 80, 200, 1)}, limit: 100,
			want: []string{"0: 3", "33: 96", "overflow of www-data: 104 listeners"},
		},
		{
			name:   "the next one is cut to the same number",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(33, 80, 60, 1), groupsOf(100000, 200, 200, 1)}, limit: 100,
			want: []string{"0: 3", "33: 48", "100000: 47", "overflow of ann: 153 listeners", "overflow of www-data: 12 listeners"},
		},
		{
			name:   "many user ids are one person",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(100000, 1000, 60, 1), groupsOf(100001, 2000, 60, 1)}, limit: 50,
			want: []string{"0: 3", "100000: 23", "100001: 23", "overflow of ann: 74 listeners"},
		},
		{
			name:   "the nameless are one group, without a tag",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(501, 1000, 60, 1), groupsOf(502, 2000, 60, 1)}, limit: 50,
			want: []string{"0: 3", "501: 23", "502: 23", "overflow of : 74 listeners"},
		},
		{
			name:   "few overflow points",
			groups: [][]*group{groupsOf(0, 1, 30, 1), groupsOf(33, 100, 30, 1), groupsOf(501, 200, 30, 1), groupsOf(100000, 300, 40, 1)}, limit: 20,
			want: []string{"0: 5", "33: 4", "501: 5", "100000: 4", "overflow of ann: 36 listeners", "overflow of : 76 listeners"},
		},
		{
			name:   "a limit of one",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(33, 80, 2, 1)}, limit: 1,
			want: []string{"overflow of : 5 listeners"},
		},
		{
			name:   "who has few keeps the exporter's points too",
			groups: [][]*group{groupsOf(0, 1, 3, 1), groupsOf(33, 80, 200, 1)}, limit: 100, exporter: true,
			want: []string{"0: 3", "33: 93", "exporter 0: 3", "exporter 33: 0", "overflow of www-data: 107 listeners, 93 exporter points"},
		},
		{
			name:   "the exporter takes what is left",
			groups: [][]*group{groupsOf(0, 1, 3, 2), groupsOf(33, 80, 20, 64)}, limit: 100, exporter: true,
			want: []string{"0: 3", "33: 20", "exporter 0: 6", "exporter 33: 70", "overflow of www-data: 0 listeners, 1210 exporter points"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gs := groupSet{sorted: slices.Concat(tt.groups...)}
			slices.SortFunc(gs.sorted, compareGroups)
			gs.limit(tt.limit, people, tt.exporter)
			var got []string
			count := make(map[uint32]int)
			exporter := make(map[uint32]int)
			total := len(gs.shown) + len(gs.overflow)
			for _, g := range gs.shown {
				count[g.uid()]++
				exporter[g.uid()] += g.exporterLimit
				total += g.exporterLimit
			}
			for _, uid := range []uint32{0, 33, 501, 502, 100000, 100001} {
				if count[uid] > 0 {
					got = append(got, fmt.Sprintf("%d: %d", uid, count[uid]))
				}
			}
			for _, uid := range []uint32{0, 33} {
				if tt.exporter {
					got = append(got, fmt.Sprintf("exporter %d: %d", uid, exporter[uid]))
				}
			}
			for _, o := range gs.overflow {
				v := o.sum()
				text := fmt.Sprintf("overflow of %s: %d listeners", (&metric.Point{Tags: o.tags}).Tag("user"), v.listeners)
				if v.exporterPoints > 0 {
					text += fmt.Sprintf(", %d exporter points", v.exporterPoints)
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if total > tt.limit {
				t.Errorf("%d points, more than %d", total, tt.limit)
			}
		})
	}
}

// A person loses the most recent listeners first, then those with the highest ports. People
// with very many come last in the batch.
func TestLimitOrder(t *testing.T) {
	many := groupsOf(33, 1, 30, 1)
	many[5].record.firstSeen, many[6].record.firstSeen = 0, 0
	gs := groupSet{sorted: slices.Concat(many, groupsOf(0, 100, 2, 1))}
	gs.limit(20, people, false)
	var got []string
	for _, g := range gs.shown {
		got = append(got, fmt.Sprint(g.members[0].socket.Port))
	}
	want := "100 101 6 7 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30"
	if got := strings.Join(got, " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The listeners of others are kept when one user has more than all that are shown: 5,100, or
// 30,000 with SOCKWATCH_SOAK.
func TestManyListenersOfOneUser(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of listeners")
	}
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	const processes = 3
	each := min(10_000, soak.Times(1_700))
	for i := range processes {
		startAs(t, nobody, task{Listen: []listenTask{{Addr: fmt.Sprintf("127.0.0.%d", i+1), Port: 10000, Count: each}}})
	}
	start(t, task{Name: []byte("others"), Listen: []listenTask{{Addr: "127.0.0.9", Port: 60000}, {Addr: "127.0.0.9", Port: 1}}})
	in := open(t, Defaults())
	var before metric.Batch
	for range 3 {
		b := gather(t, in)
		if n := len(b.Points); n != 5000 {
			t.Fatalf("%d points, want max_listeners", n)
		}
		i := slices.IndexFunc(b.Points, func(p metric.Point) bool { return p.Name == pointOverflow })
		if i < 4900 {
			t.Fatalf("the overflow point is number %d", i)
		}
		others := 5000 - i - 1 // points of totals and the history
		p := b.Points[i]
		if p.Tag("user") != "nobody" || field(t, p, "listeners") != processes*each-4997+others || field(t, p, "sockets") != processes*each-4997+others {
			t.Errorf("%s %v, and %d other points", p.Series(), p.Fields, others)
		}
		for _, port := range []int{1, 60000} {
			if p := one(t, b, port); p.Tag("process") != "others" {
				t.Error(p.Series())
			}
		}
		if before.Points != nil && before.Points[4000].Series() != b.Points[4000].Series() {
			t.Error("not the same listeners of the user stay as at the gather before")
		}
		before = b
	}
}
