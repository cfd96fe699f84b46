package buffer

import (
	"errors"
	"fmt"
	"io/fs"
)

// Backlog returns how many records the queue in a directory holds, and about how many
// bytes. It takes no lock and changes nothing, so it can report the queue of a removed
// output. A directory that is not a queue has no records.
func Backlog(dir string) (records int, bytes int64, err error) {
	d, err := openFolder(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("queue %q: %w", dir, err)
	}
	defer d.close()
	segments, err := backlog(d)
	if err != nil {
		return 0, 0, fmt.Errorf("queue %q: %w", dir, err)
	}
	for _, s := range segments {
		if s.left > 0 {
			records += s.left
			bytes += s.size
		}
	}
	return records, bytes, nil
}

func backlog(d folder) ([]*segment, error) {
	l, err := list(d)
	if err != nil {
		return nil, err
	}
	var acked uint64
	f, err := d.open(acksName)
	if err == nil {
		acked, _, _ = readSlots(f)
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return l.segments, survey(d, l.segments, acked)
}
