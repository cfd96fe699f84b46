package metric

import (
	"fmt"
	"hash/maphash"
	"slices"
	"unicode/utf8"
)

// Check returns an error for the first violation of the rules of Batch, Point and Tag,
// or nil. It does not check Source and Descs.
func (b *Batch) Check() error {
	if b.Time.IsZero() {
		return fmt.Errorf("batch has no time")
	}
	for i := range b.Points {
		if err := b.Points[i].Check(); err != nil {
			return err
		}
	}
	for i := range b.Events {
		if err := b.Events[i].Check(); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if b.Events[i].Time.IsZero() {
			return fmt.Errorf("event %s has no time", b.Events[i].Series())
		}
	}
	var set SeriesSet
	for i := range b.Points {
		if !set.Add(&b.Points[i]) {
			return fmt.Errorf("two points with the same name and tags: %s", b.Points[i].Series())
		}
	}
	return nil
}

// Check returns an error for the first violation of the rules of Point, or nil.
func (p *Point) Check() error {
	if p.Name == "" || !utf8.ValidString(p.Name) {
		return fmt.Errorf("invalid point name %q", p.Name)
	}
	for i, t := range p.Tags {
		switch {
		case t.Key == "" || !utf8.ValidString(t.Key):
			return fmt.Errorf("%s: invalid tag key %q", p.Name, t.Key)
		case t.Value == "":
			return fmt.Errorf("%s: tag %s is empty", p.Name, t.Key)
		case !utf8.ValidString(t.Value):
			return fmt.Errorf("%s: tag %s is not UTF-8: %q", p.Name, t.Key, t.Value)
		case i > 0 && p.Tags[i-1].Key >= t.Key:
			return fmt.Errorf("%s: tags %s and %s are out of order", p.Name, p.Tags[i-1].Key, t.Key)
		}
	}
	if len(p.Fields) == 0 {
		return fmt.Errorf("%s has no fields", p.Series())
	}
	for i, f := range p.Fields {
		switch {
		case f.Key == "" || !utf8.ValidString(f.Key):
			return fmt.Errorf("%s: invalid field key %q", p.Name, f.Key)
		case !utf8.ValidString(f.Value.str):
			return fmt.Errorf("%s: field %s is not UTF-8: %q", p.Name, f.Key, f.Value.str)
		}
		for _, g := range p.Fields[:i] {
			if g.Key == f.Key {
				return fmt.Errorf("%s: duplicate field %s", p.Name, f.Key)
			}
		}
	}
	return nil
}

// Series returns the point's series for messages: name{key="value",...}.
func (p *Point) Series() string {
	s := []byte(p.Name)
	s = append(s, '{')
	for i, t := range p.Tags {
		if i > 0 {
			s = append(s, ',')
		}
		s = fmt.Appendf(s, "%s=%q", t.Key, t.Value)
	}
	return string(append(s, '}'))
}

// A SeriesSet holds the series (name and tags) of points. The zero value is
// empty. The points must not change while the set is in use.
type SeriesSet struct {
	seed maphash.Seed
	seen map[uint64]*Point // by hash; on a collision, at the next free number
}

// Add adds the series of p. It reports false if the set already has it.
func (s *SeriesSet) Add(p *Point) bool {
	if s.seen == nil {
		s.seed = maphash.MakeSeed()
		s.seen = make(map[uint64]*Point)
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.WriteString(p.Name)
	for _, t := range p.Tags {
		h.WriteByte(0xff) // a byte that does not occur in UTF-8
		h.WriteString(t.Key)
		h.WriteByte(0xff)
		h.WriteString(t.Value)
	}
	for sum := h.Sum64(); ; sum++ {
		q := s.seen[sum]
		if q == nil {
			s.seen[sum] = p
			return true
		}
		if q.Name == p.Name && slices.Equal(q.Tags, p.Tags) {
			return false
		}
	}
}
