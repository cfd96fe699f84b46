package buffer

import (
	"errors"
	"io/fs"
	"log/slog"
)

// A store holds what the writer and the reader of a queue share.
type store struct {
	dir     folder // changes only while neither is working
	catalog *catalog
	log     *slog.Logger // with the path of the queue
}

// remove removes a segment that is no longer needed.
func (s *store) remove(g *segment) error {
	err := withReserve(s.dir, func() error { return s.dir.remove(g.name()) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.catalog.remove(g)
	return nil
}
