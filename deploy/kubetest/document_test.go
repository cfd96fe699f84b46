package kubetest

import (
	"regexp"
	"testing"
)

const document = repository + "/docs/kubernetes.md"

// documentedValues returns the values that docs/kubernetes.md shows, "doc-NAME" for the block that
// begins with "# NAME.yaml".
func documentedValues(t *testing.T) map[string]string {
	t.Helper()
	blocks := make(map[string]string)
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# ([a-z]+)\\.yaml\n(.*?)^```$").FindAllStringSubmatch(readFile(t, document), -1) {
		blocks["doc-"+m[1]] = m[2]
	}
	return blocks
}
