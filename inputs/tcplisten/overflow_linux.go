package tcplisten

import (
	"cmp"
	"maps"
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/users"
)

// fold keeps at most limit groups, and returns the others by user. The user with
// the most listeners loses as many as it takes, then the next one: those of all
// others stay whole. Of a user's the last in order go, so that the same stay from
// gather to gather.
func fold(groups []*group, limit int, users *users.Names) (kept []*group, folded map[string][]*group) {
	excess := len(groups) - limit
	if excess <= 0 {
		return groups, nil
	}
	stay := make(map[uint32]int)
	for _, g := range groups {
		stay[g.uid()]++
	}
	most := func(a, b uint32) int { return cmp.Or(cmp.Compare(stay[b], stay[a]), cmp.Compare(a, b)) }
	for _, uid := range slices.SortedFunc(maps.Keys(stay), most) {
		cut := min(excess, stay[uid])
		stay[uid] -= cut
		excess -= cut
	}
	folded = make(map[string][]*group)
	for _, g := range groups {
		if stay[g.uid()] > 0 {
			stay[g.uid()]--
			kept = append(kept, g)
			continue
		}
		user := users.Name(g.uid())
		folded[user] = append(folded[user], g)
	}
	return kept, folded
}

// overflow returns the point of a user's listeners that have none of their own.
func overflow(user string, groups []*group) metric.Point {
	sockets, backlog := 0, uint64(0)
	for _, g := range groups {
		sockets += len(g.members)
		for _, l := range g.members {
			backlog += uint64(l.socket.Backlog)
		}
	}
	return metric.Point{
		Name: pointOverflow,
		Tags: metric.NewTags("user", user),
		Fields: []metric.Field{
			{Key: "listeners", Value: metric.Int(int64(len(groups)))},
			{Key: "sockets", Value: metric.Int(int64(sockets))},
			{Key: "backlog", Value: metric.Uint(backlog)},
		},
	}
}
