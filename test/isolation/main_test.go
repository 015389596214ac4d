// Package isolation shows what must never happen: that a tenant sees or moves
// another one's data, that a key does what it was not given, that a secret
// shows up somewhere, that an attack of design security.md §12 gets through.
//
// What it checks is generated, from api/openapi.yaml and from the database's
// catalogue, wherever it can be: a new route, parameter or table is covered
// the day it is added, or fails here.
package isolation
