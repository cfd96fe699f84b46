package buffer

import (
	"errors"
	"io/fs"
	"log/slog"
)

// A store is what the writer and the reader of a queue share.
type store struct {
	dir     folder // changes only while neither of them works
	catalog *catalog
	log     *slog.Logger // names the queue
}

// remove removes a segment of which nothing is needed any more.
func (s *store) remove(g *segment) error {
	err := withReserve(s.dir, func() error { return s.dir.remove(g.name()) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.catalog.remove(g)
	return nil
}
