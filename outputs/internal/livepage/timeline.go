package livepage

import "time"

// An entry of the timeline is one event, or several of one cause.
type entry struct {
	ID     string // of the oldest event
	Time   time.Time
	Event  string // "opened", "violated", ...
	Title  string // what it is about: "0.0.0.0:443 nginx"
	Before string // what was before; "" if nothing
	Link   string // to the listener
	Facts  []fact // more, for the details
}

// A fact is one name and value.
type fact struct{ Name, Value string }
