package plugin

import "strings"

// Nearest returns the known word that was probably meant, or "" if none is near: at most a third
// of the characters may differ, so that a word of one or two letters is near to nothing.
func Nearest(word string, known []string) (nearest string) {
	least := 0
	for _, k := range known {
		d := distance(strings.ToLower(word), k)
		if d <= min(len(word), len(k))/3 && (nearest == "" || d < least) {
			nearest, least = k, d
		}
	}
	return nearest
}

// distance returns how many characters have to be inserted, deleted, replaced or swapped
// with their neighbor to turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
