! Formatted, unformatted, direct and stream access; what is written is read back.
program access
  implicit none
  integer :: i, n, u, v, status, big(1000)
  real(8) :: x(100), y(100), total
  character(len=80) :: line
  character(len=1) :: byte
  logical :: there
  namelist /setup/ n, total

  open (newunit=u, file='table.txt', form='formatted', status='replace')
  do i = 1, 2000
     write (u, '(i6, f12.4, es14.6)') i, i / 7d0, sqrt(real(i, 8))
  end do
  rewind (u)
  do i = 1, 10
     read (u, '(a)') line
  end do
  backspace (u)
  read (u, '(a)') line
  write (*, '(a)') trim(line)
  close (u)
  open (newunit=u, file='table.txt', position='append')
  write (u, *) 'appended'
  close (u)

  x = [(i * 0.5d0, i = 1, 100)]
  open (newunit=u, file='records.bin', form='unformatted', status='replace')
  do i = 1, 20
     write (u) i, x * i
  end do
  backspace (u)
  backspace (u)
  read (u) n, y
  write (*, *) n, y(100)
  endfile (u)
  close (u)
  open (newunit=u, file='records.bin', form='unformatted', action='read')
  n = 0
  do
     read (u, iostat=status) i
     if (status /= 0) exit
     n = n + i
  end do
  write (*, *) 'records', n, is_iostat_end(status)
  close (u)

  open (newunit=u, file='direct.bin', access='direct', recl=800, form='unformatted', status='replace')
  do i = 50, 1, -3
     write (u, rec=i) x + i
  end do
  read (u, rec=26) y
  inquire (unit=u, nextrec=n)
  write (*, *) 'direct', y(1), n
  write (u, rec=26) y * 2
  close (u)
  open (newunit=u, file='direct.txt', access='direct', recl=20, form='formatted', status='replace')
  do i = 1, 100
     write (u, '(i19, a)', rec=101 - i) i, new_line('a')
  end do
  close (u)

  open (newunit=u, file='stream.bin', access='stream', form='unformatted', status='replace')
  big = [(i * i, i = 1, 1000)]
  write (u) big
  write (u, pos=2001) -1, -2
  inquire (unit=u, pos=n)
  read (u, pos=1997) big(1:4)
  write (*, *) 'stream', n, big(1:4)
  inquire (unit=u, size=n)
  write (*, *) 'size', n
  close (u)
  open (newunit=u, file='stream.txt', access='stream', form='formatted', status='replace')
  write (u, '(a)') 'first line', 'second line'
  write (u, '(a)', pos=7) 'LINE'
  close (u)

  open (newunit=u, status='scratch', form='unformatted')
  write (u) big
  rewind (u)
  read (u) big
  close (u)
  total = sum(real(big, 8))
  n = 7
  open (newunit=u, file='setup.nml', status='replace')
  write (u, nml=setup)
  rewind (u)
  n = 0
  read (u, nml=setup)
  write (*, *) 'namelist', n
  close (u)

  ! The input of another program, line by line, and twice at once.
  open (newunit=u, file='numbers', action='read', status='old')
  open (newunit=v, file='numbers.copy', status='new', action='write')
  total = 0
  do
     read (u, *, iostat=status) n
     if (status /= 0) exit
     total = total + n
     write (v, '(i0)') n
  end do
  close (u)
  close (v)
  write (*, *) 'total', total
  inquire (file='numbers.copy', exist=there, size=n)
  write (*, *) there, n
  open (newunit=v, file='numbers.copy')
  close (v, status='delete')
  inquire (file='numbers.copy', exist=there)
  write (*, *) there
  open (newunit=u, file='none/such', status='old', iostat=status)
  write (*, *) 'missing', status /= 0
  open (newunit=u, file='table.txt', status='new', iostat=status)
  write (*, *) 'exists', status /= 0
  open (newunit=u, file='table.txt', access='stream', action='readwrite')
  write (u, pos=3) 'X'
  read (u, pos=1) byte
  flush (u)
  close (u)
end program access
