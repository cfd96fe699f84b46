package livepage

import (
	"strings"
)

// nearest returns the known word that is closest to a mistyped one, or "".
func nearest(typed string, known map[string]audience) string {
	typed = strings.ToLower(typed)
	best, least := "", len(typed)/3+2
	for k := range known {
		d := distance(typed, k)
		if strings.HasPrefix(k, typed) {
			d = 1
		}
		if d < least || d == least && best != "" && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance returns how many characters have to be inserted, deleted or replaced to turn a
// into b. Words of very different lengths are far apart.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 3 || d < -3 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
