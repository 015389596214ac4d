package isolation

import (
	"regexp"
	"strconv"
	"sync"
)

// What was tried in this run: cases by row of design security.md §12, and the
// size of each matrix that is made from the contract.
var tally = struct {
	sync.Mutex
	rows     map[int]int
	matrices map[string][2]int // routes, cases
}{rows: map[int]int{}, matrices: map[string][2]int{}}

var aRow = regexp.MustCompile(`\d+`)

// tried counts one case of the rows that a text names: "30, 33", or a case's
// name that begins with them.
func tried(rows string) {
	tally.Lock()
	defer tally.Unlock()
	for _, number := range aRow.FindAllString(rows, -1) {
		n, _ := strconv.Atoi(number)
		tally.rows[n]++
	}
}

// counted keeps how large a matrix was.
func counted(matrix string, routes, cases int) {
	tally.Lock()
	defer tally.Unlock()
	tally.matrices[matrix] = [2]int{routes, cases}
}
