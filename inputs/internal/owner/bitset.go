package owner

import "math/bits"

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

// add adds the members of another set that are in mask too; a nil mask has all.
func (b *bitset) add(other, mask bitset) {
	if missing := len(other) - len(*b); missing > 0 {
		*b = append(*b, make(bitset, missing)...)
	}
	for i, word := range other {
		if mask != nil && i >= len(mask) {
			break
		}
		if mask != nil {
			word &= mask[i]
		}
		(*b)[i] |= word
	}
}

func (b bitset) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}
