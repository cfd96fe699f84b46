package tcplisten

import (
	"os/user"
	"strconv"
	"time"

	"sockwatch/inputs/internal/escape"
)

// users knows the names of user ids. The zero value knows none yet.
type users struct {
	names   map[uint32]string
	since   time.Time
	version uint32 // changes when names are forgotten
}

// name returns the user's name, or the number of one that has none.
func (u *users) name(uid uint32) string {
	if name, ok := u.names[uid]; ok {
		return name
	}
	id := strconv.FormatUint(uint64(uid), 10)
	name := id
	if found, err := user.LookupId(id); err == nil && found.Username != "" {
		name = escape.Name([]byte(found.Username))
	}
	u.names[uid] = name
	return name
}

// expire forgets the names when they are older than a period, so that they are
// looked up again, and tells whether it did.
func (u *users) expire(now time.Time, period time.Duration) bool {
	if u.names != nil && now.Sub(u.since) < period {
		return false
	}
	u.names = make(map[uint32]string)
	u.since = now
	u.version++
	return true
}
