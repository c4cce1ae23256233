# Two pieces of code, see record-start.ts.
#
# forward, 96 bytes: a handler of fault signals, sigaction(2) with SA_SIGINFO. One thread of the engine blocks all but these.
# It blocks them when this returns. One that a process sent is sent to us again, for the thread that waits for it. A fault of
# its own comes again, and ends the process because it is blocked.
    .globl forward
forward:
    orq $0x4f8, 0x128(%rdx)     # uc_sigmask: ILL TRAP ABRT BUS FPE SEGV
    cmpl $0, 8(%rsi)            # si_code: above 0 from the kernel
    jg 1f
    movl $-1, 8(%rsi)           # SI_QUEUE: the code of kill(2) is allowed to the main thread alone
    mov %edi, %r8d
    mov $39, %eax               # getpid()
    syscall
    mov %eax, %edi
    mov %rsi, %rdx
    mov %r8d, %esi
    mov $129, %eax              # rt_sigqueueinfo(pid, signal, siginfo)
    syscall
1:  ret
    .org forward + 96

# stub runs before _start. Records in the value of AT_FLAGS (8) of the auxiliary vector,
# which Linux leaves 0 and nothing reads, which signals were ignored at execve(2): bit S-1 for signal S.
# Bit 8 (SIGKILL, which cannot be ignored) says that SIGPWR was blocked. Keeps rdx and rsp, which _start reads.
    .globl stub
stub:
    push %rdx
    lea 16(%rsp), %r12          # argv; argc is at 8(%rsp)
    mov -8(%r12), %rax
    lea 8(%r12,%rax,8), %r12    # envp, past argv's null
1:  add $8, %r12
    cmpq $0, -8(%r12)
    jne 1b                      # r12: auxv
2:  mov (%r12), %rax
    test %rax, %rax             # AT_NULL
    jz 5f
    cmp $8, %rax                # AT_FLAGS
    je 3f
    add $16, %r12
    jmp 2b
3:  sub $40, %rsp               # struct sigaction of the kernel: 32 bytes
    xor %r13d, %r13d
    mov $64, %ebx
4:  mov $13, %eax               # rt_sigaction(signal, NULL, rsp, 8)
    mov %ebx, %edi
    xor %esi, %esi
    mov %rsp, %rdx
    mov $8, %r10d
    syscall
    add %r13, %r13
    cmpq $1, (%rsp)             # SIG_IGN
    jne 6f
    inc %r13
6:  dec %ebx
    jnz 4b
    mov $14, %eax               # rt_sigprocmask(SIG_BLOCK, NULL, rsp, 8)
    xor %edi, %edi
    xor %esi, %esi
    mov %rsp, %rdx
    mov $8, %r10d
    syscall
    mov (%rsp), %rax
    bt $29, %rax                # SIGPWR = 30
    jnc 7f
    bts $8, %r13
7:  mov %r13, 8(%r12)
    mov %rsp, %rdi              # rt_sigaction(SIGPWR, { SIG_DFL }, NULL, 8): else WTF says on stderr that it is ignored
    xor %eax, %eax
    mov $4, %ecx
    rep stosq
    mov $13, %al
    mov $30, %edi
    mov %rsp, %rsi
    xor %edx, %edx
    syscall
    add $40, %rsp
5:  pop %rdx
    .byte 0xe9                  # jmp _start: the builder puts the distance here
    .long 0
