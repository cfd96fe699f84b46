package expect

// Ports are a port, a range, or a list of these.
type Ports []PortRange

// A PortRange is the ports from First to Last, which may be equal.
type PortRange struct{ First, Last uint16 }
