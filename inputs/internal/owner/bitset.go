package owner

import (
	"math/bits"
	"slices"
)

// A bitset is a set of small numbers. Its zero value is empty.
type bitset []uint64

func (b bitset) has(n int32) bool { return int(n/64) < len(b) && b[n/64]&(1<<(n%64)) != 0 }

func (b *bitset) set(n int32) {
	if missing := int(n/64) + 1 - len(*b); missing > 0 {
		*b = append(*b, make(bitset, missing)...)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bitset) clear(n int32) {
	if int(n/64) < len(b) {
		b[n/64] &^= 1 << (n % 64)
	}
}

// add adds the members of another set.
func (b *bitset) add(other bitset) {
	if missing := len(other) - len(*b); missing > 0 {
		*b = append(*b, make(bitset, missing)...)
	}
	for i, word := range other {
		(*b)[i] |= word
	}
}

// remove removes the members of another set.
func (b bitset) remove(other bitset) {
	for i := range min(len(b), len(other)) {
		b[i] &^= other[i]
	}
}

// and returns the members of both sets.
func (b bitset) and(other bitset) bitset {
	both := slices.Clone(b[:min(len(b), len(other))])
	for i := range both {
		both[i] &= other[i]
	}
	return both
}

func (b bitset) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}
