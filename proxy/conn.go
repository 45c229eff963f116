package proxy

// Conn is a client's connection before login.
type Conn struct{}
