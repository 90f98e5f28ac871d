NAME        
ROWS
 N  Obj     
 L  r0      
 L  r1      
 L  r2      
 L  r3      
 L  r4      
 L  r5      
 L  r6      
 L  r7      
 E  r8      
 E  r9      
 E  r10     
COLUMNS
    c0        r0        1
    c0        r2        -1
    c0        r8        1
    c1        r1        1
    c1        r3        -1
    c1        r8        1
    c2        r1        1
    c2        r3        -1
    c2        r8        1
    c3        r9        1
    c4        Obj       -0.9
    c4        r9        1
    c5        r9        1
    c6        r4        1
    c6        r6        -1
    c6        r10       1
    c7        r5        1
    c7        r7        -1
    c7        r10       1
    c8        r5        1
    c8        r7        -1
    c8        r10       1
    c9        r8        1
    c10       r10       1
    c11       r0        -1
    c11       r1        -1
    c11       r2        1
    c11       r3        1
    c12       r4        -1
    c12       r5        -1
    c12       r6        1
    c12       r7        1
RHS
    RHS_V     Obj       -0.9
    RHS_V     r0        1
    RHS_V     r1        1
    RHS_V     r4        1
    RHS_V     r5        1
    RHS_V     r8        2
    RHS_V     r9        2
    RHS_V     r10       1
BOUNDS
 UP BOUND     c0        1
 UP BOUND     c1        1
 UP BOUND     c2        1
 UP BOUND     c3        1
 UP BOUND     c4        1
 UP BOUND     c5        1
 UP BOUND     c6        1
 UP BOUND     c7        1
 UP BOUND     c8        1
 UP BOUND     c9        2
 UP BOUND     c10       1
 UP BOUND     c11       2
 UP BOUND     c12       1
ENDATA
